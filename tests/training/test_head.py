"""``--tune head`` from end to end: one pass of the network, its clusters, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_METHODS, WITH_BATCHNORM, drawn, tiny_config, tiny_pictures, write_pictures
from torch import Tensor, nn

from swav import cli
from swav.config import UsageError, from_dict, to_dict
from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import SourceConfig, from_arrays
from swav.evals.selection import named_tasks
from swav.methods import BYOLConfig
from swav.recipes import TrainConfig, with_channels
from swav.recipes.train_config import read_train_config
from swav.run_folder.config_file import write_config
from swav.training import outputs
from swav.training.frozen_features import check_head, step_features
from swav.training.plan import print_plan
from swav.training.run import train

SHOWN = EvalTransform(input_size=(3, 24, 24), mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=0.875)
TRAIN = ("train", "--backbone", "resnet10t", "--tune", "head", "--epochs", "1")
NUM_PICTURES = 64


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tuned(**changes: object) -> TrainConfig:
    """Return a training of a head on a network of other weights than its seed gives."""
    torch.manual_seed(5)
    torch.save(WITH_BATCHNORM.build().state_dict(), "start.pth")
    config = tiny_config(backbone=WITH_BATCHNORM, init="start.pth", tune="head", input=SHOWN)
    return replace(config, **changes)


def test_the_training_pictures_pass_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, for embeddings, clusters and scores, beside the start: together once."""
    config, passes = tuned(epochs=1), []
    start = torch.load("start.pth")["conv1.0.weight"]
    network = type(WITH_BATCHNORM.build())
    forward = network.forward

    def counted(module: nn.Module, batch: Tensor) -> Tensor:
        if torch.equal(module.get_parameter("conv1.0.weight"), start):
            passes.append(len(batch))
        return forward(module, batch)

    def two_tasks(_: object) -> dict[str, object]:
        return named_tasks(["knn", "linear"])

    # augmented pictures and parts of pictures are others
    monkeypatch.setattr(outputs, "judged", lambda *_, **__: {"skipped": "", "remedy": ""})
    monkeypatch.setattr(outputs, "named_tasks", two_tasks)
    monkeypatch.setattr(network, "forward", counted)
    train(tiny_pictures(), config=config, out="run")
    assert sum(passes) == NUM_PICTURES
    assert np.load("run/embeddings.npz")["embeddings"].shape[0] == NUM_PICTURES
    knn = json.loads(Path("run/eval/knn.json").read_text())
    assert knn["baselines"]["start"] == knn["metrics"], "the network is its start"
    assert Path("run/clusters.csv").exists()
    assert Path("run/report.html").exists()
    assert read_train_config(Path("run/config.yaml")).input == SHOWN


@pytest.mark.parametrize("name", ["byol", "rotation"])
def test_other_methods_are_refused_with_the_reason(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({}, "start.pth")
    words = (*TRAIN, write_pictures(folder), "--init", "start.pth", "--method", name)
    words += ("--crops", "2x20") if name == "rotation" else ()
    assert cli.main([*words, "--out", "run"]) == cli.USAGE
    error = capsys.readouterr().err
    assert "learns from the pictures themselves: give --method one of swav, deepcluster" in error
    assert not (folder / "run").exists()


def test_methods_that_need_pictures_are_refused() -> None:
    check_head(tuned())
    with pytest.raises(UsageError, match="learns from the pictures themselves"):
        check_head(replace(tuned(), method=TINY_METHODS[BYOLConfig]))


def test_pictures_of_a_group_are_views_of_each_other(folder: Path) -> None:
    """A picture alone in its group is beside its nearest; one that cannot be read is in none."""
    pixels, _ = drawn(24)
    for number, pixel in enumerate(pixels):
        place = folder / "pictures" / (f"alone{number}" if number < 4 else f"group{number % 2}")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixel).save(place / f"{number:02}.png")
    (folder / "pictures" / "alone0" / "00.png").write_bytes(b"broken")
    config = tuned(data=SourceConfig(data="pictures", max_bad_fraction=0.1))
    config = replace(
        config,
        views=replace(config.views, group="folder"),
        optim=replace(config.optim, batch_size=23),
    )
    check_head(config)
    features = step_features(WITH_BATCHNORM.build(), config.data.build(), config, folder / "run")
    names = [name for name in config.data.build().names if not name.endswith("00.png")]
    by_row = {tuple(row.tolist()): number for number, row in enumerate(features._features.values)}
    assert len(by_row) == 23
    batch = features[0]
    for own, other in zip(*batch.views, strict=True):
        rows = [by_row[tuple(each.tolist())] for each in (own, other)]
        folders = [Path(names[row]).parts[0] for row in rows]
        assert rows[0] != rows[1]
        assert folders[0].startswith("alone") or folders[0] == folders[1]


def test_what_the_network_is_shown_is_written_down(folder: Path) -> None:
    for config in (tuned(), tuned(input=None)):
        assert from_dict(TrainConfig, to_dict(config)) == config
        write_config(folder, to_dict(config))
        assert read_train_config(folder / "config.yaml") == config
    assert with_channels(tuned(), 3).input == SHOWN
    grey = with_channels(tuned(), 1).input
    assert grey == replace(SHOWN, input_size=(1, 24, 24), mean=(0.5,), std=(0.25,))


def test_the_plan_is_of_one_pass_and_steps_on_features(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, _ = drawn()
    pictures = from_arrays(pixels)
    monkeypatch.setattr("swav.training.plan.StepViews", pytest.fail)
    print_plan(tuned(), pictures.facts(), pictures)
    plan = capsys.readouterr().out
    dim = WITH_BATCHNORM.build().num_features
    kept = f"whose features are kept ({dim * 256 / 1e6:.1f} MB)"
    assert f"one pass of the frozen network at 24x24, {kept}" in plan
    assert "then 5 epochs of 4 steps = 20 steps of 16 pictures, each beside a near one" in plan
    assert "for the pass" in plan
    assert "for the steps" in plan
    assert "views each" not in plan


def test_the_time_of_a_plan_is_the_pass_and_the_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = from_arrays(drawn()[0])
    monkeypatch.setattr("swav.training.plan._probe_pass", lambda *_: (0.5, 2**20))
    monkeypatch.setattr("swav.training.plan._measured", lambda *_: (2.0, 2**30))
    print_plan(tuned(), pictures.facts(), pictures)
    plan = capsys.readouterr().out
    assert "about 32 s for the pass (2 pictures/s in a probe of 64, reading not counted)" in plan
    assert "and 40 s for the steps" in plan
    assert "one rank: about 1.0 GiB" in plan
