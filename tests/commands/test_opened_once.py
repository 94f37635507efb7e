"""A command opens its pictures once, and a program trains on pictures that it has opened."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import drawn, tiny_config

import swav
from swav import cli, config, recipes
from swav.config import with_values
from swav.data.sources import archives
from swav.data.sources import open as opening
from swav.data.sources.open import SourceConfig
from swav.recipes.options import Start, complete
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.training import run as run_module


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A compressed archive of pictures in two parts, in the current folder."""
    monkeypatch.chdir(tmp_path)
    with tarfile.open("photos.tar.gz", "w:gz") as archive:
        for number, (pixels, label) in enumerate(zip(*drawn(96), strict=True)):
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, format="png")
            part = "train" if number % 3 else "test"
            member = tarfile.TarInfo(f"{part}/{label}/{number}.png")
            member.size = content.tell()
            archive.addfile(member, io.BytesIO(content.getvalue()))
    return "photos.tar.gz"


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[Any]]:
    """Return what has a function of a module write down the first argument of each call."""

    def count_calls(module: Any, name: str) -> list[Any]:
        calls, function = [], vars(module)[name]

        def counting(*values: Any, **named: Any) -> Any:
            calls.append(values[0])
            return function(*values, **named)

        monkeypatch.setattr(module, name, counting)
        return calls

    return count_calls


QUICK = ("--epochs", "1", "--device", "cpu", "--threads", "1", "--workers", "0", "--out", "run")


def test_a_training_opens_and_lists_its_pictures_once(
    data: str, count: Callable[[Any, str], list[Any]]
) -> None:
    listed, built = count(archives, "list_archive"), count(recipes, "auto")
    words = ["--crops", "2x16", "--optim.batch-size", "32", "--no-evaluate-at-end"]
    assert cli.main(["train", data, *QUICK, *words]) == 0
    assert listed == [Path(data)]
    assert len(built) == 2  # for the options there are, then for the pictures
    assert (Path("run") / "report.html").exists()


def test_at_its_end_only_the_part_to_score_is_opened(
    data: str, count: Callable[[Any, str], list[Any]]
) -> None:
    config.dump(tiny_config(data, epochs=1), Path("tiny.yaml"))
    opened = count(opening, "open_source")
    assert cli.main(["train", "--config", "tiny.yaml", "--out", "run"]) == 0
    assert [source.split for source in opened] == [None, "test"]
    assert (Path("run") / "eval" / "knn.json").exists()


@pytest.mark.parametrize("values", [{}, {"data.channels": 1}, {"data.max_memory_gib": 2.0}])
def test_auto_hands_on_what_it_has_opened(data: str, values: dict[str, Any]) -> None:
    def changed(made: TrainConfig) -> TrainConfig:
        return with_values(made, {"data.data": data, **values})

    made, pictures = complete(Start(), changed)
    assert not isinstance(pictures, str)
    assert pictures.source == made.data
    assert pictures.channels == made.data.channels


def test_pictures_that_the_config_reads_in_another_way_are_opened_again(data: str) -> None:
    found = iter([1, 3])

    def changed(made: TrainConfig) -> TrainConfig:
        return with_values(made, {"data.data": data, "data.channels": next(found)})

    assert complete(Start(), changed)[1] == data


def test_a_program_trains_on_its_arrays_and_uses_the_run(tmp_path: Path) -> None:
    pictures = swav.from_arrays(*drawn())
    folder = swav.train(pictures, config=tiny_config(epochs=1), out=tmp_path / "run")
    assert read_train_config(folder / "config.yaml").data.data == "arrays"
    run = swav.load(folder)
    assert len(run.embed(pictures, to=tmp_path / "all.npz").names) == len(pictures)
    assert run.cluster(pictures, to=tmp_path / "clusters.csv").path.exists()
    assert len(run.embed("digits", to=tmp_path / "digits.npz").names) == 1797


def test_an_opened_set_brings_its_own_source(
    data: str, count: Callable[[Any, str], list[Any]]
) -> None:
    pictures = SourceConfig(data=data, split="test").build()
    opened = count(opening, "open_source")
    settings = tiny_config(epochs=1, evaluate_at_end=False)
    folder = swav.train(pictures, config=settings, out="run")
    assert opened == []
    assert read_train_config(folder / "config.yaml").data == pictures.source
    assert pictures.subset(np.arange(2)).source is None


def test_a_recipe_of_a_program_opens_once(
    data: str, count: Callable[[Any, str], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = count(opening, "open_source")
    monkeypatch.setattr(run_module, "check_plan", lambda *_: [])
    monkeypatch.setattr(run_module, "print_plan", lambda *_, **__: None)
    swav.train(data, dry_run=True)
    assert [source.data for source in opened] == [data]
