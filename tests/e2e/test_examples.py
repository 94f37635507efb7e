"""The examples do what they say, on less data."""

import runpy
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import drawn, tiny_config, write_pictures

import swav
from swav.training.trained_run import TrainedRun

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTED = {
    *("train_in_three_lines.py", "open_with_timm.py", "own_loop.py", "lightning_module.py"),
    *("huggingface_dataset.py", "sklearn_pipeline.py", "onnx_picture.py"),
}

Example = Callable[..., str]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Run an example with some words, and return what it prints."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("examples")
    data = write_pictures(folder)
    config = tiny_config(data, epochs=1, evaluate_at_end=False)
    run = swav.train(data, config=config, out=folder / "run")
    Image.fromarray(drawn()[0][0]).save(folder / "picture.png")
    return run


def needs(package: str) -> pytest.MarkDecorator:
    reason = f"the package {package} is not installed: pip install {package}"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


def test_train_in_three_lines(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(write_pictures(tmp_path), epochs=1)
    monkeypatch.setattr(swav, "train", partial(swav.train, config=config))
    out = example("train_in_three_lines.py", tmp_path)
    assert out.endswith("1797 pictures, 16 features each\n")
    assert (tmp_path / "run" / "report.html").exists()


def test_open_with_timm(example: Example, trained: TrainedRun) -> None:
    picture = trained.folder.parent / "picture.png"
    assert example("open_with_timm.py", trained / "model", picture).startswith("16 features")


@needs("onnxruntime")
@needs("onnxscript")
def test_onnx_on_a_picture(
    example: Example, trained: TrainedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    swav.export(trained, to="onnx")
    capsys.readouterr()
    picture = trained.folder.parent / "picture.png"
    out = example("onnx_picture.py", trained / "export/onnx", picture)
    first = trained.encoder.encode(picture)[0, :3]
    printed = torch.tensor([float(word) for word in out.split("[")[1].split("]")[0].split(",")])
    torch.testing.assert_close(printed, first, rtol=1e-3, atol=1e-4)
    assert f"cluster {trained.encoder.assign(picture).item()}," in out


def test_own_loop(example: Example) -> None:
    lines = example("own_loop.py").splitlines()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0]


def test_sklearn_pipeline(example: Example) -> None:
    accuracy, agreement = example("sklearn_pipeline.py", 1).splitlines()
    assert float(accuracy.removeprefix("accuracy ")) > 0.5
    assert float(agreement.split()[-1]) > 0


@needs("lightning")
@pytest.mark.filterwarnings("default")  # those of its own use of torch
def test_lightning_module(example: Example, tmp_path: Path) -> None:
    for number, picture in enumerate(drawn()[0]):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    assert "loss " in example("lightning_module.py", tmp_path)


@needs("datasets")
def test_huggingface_dataset(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    images = [Image.fromarray(picture) for picture in drawn()[0]]
    held = datasets.Dataset.from_dict({"image": images})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: held)
    config = tiny_config(epochs=1, evaluate_at_end=False)
    monkeypatch.setattr(swav, "train", partial(swav.train, config=config))
    monkeypatch.chdir(tmp_path)
    assert "embedding" in example("huggingface_dataset.py", "photos")


def test_torch_hub_gives_an_encoder(trained: TrainedRun) -> None:
    hub: Any = torch.hub
    encoder = hub.load(str(EXAMPLES.parent), "encoder", source="local", run=str(trained))
    pictures, _ = drawn()
    torch.testing.assert_close(encoder.encode(pictures), trained.encoder.encode(pictures))
    assert encoder.assign(pictures).shape == (len(pictures),)


def test_examples_are_short_and_all_tested() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == TESTED
    assert all(len((EXAMPLES / name).read_text().splitlines()) < 100 for name in names)
