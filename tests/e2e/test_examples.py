"""The examples do what they say, on less data."""

import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tiny import drawn, tiny_config, write_pictures

import swav

EXAMPLES = Path(__file__).parents[2] / "examples"

Example = Callable[..., str]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Run an example with some words, and return what it prints."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_train_in_three_lines_and_open_with_timm(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(write_pictures(tmp_path), epochs=1)
    monkeypatch.setattr(swav, "train", partial(swav.train, config=config))
    out = example("train_in_three_lines.py", tmp_path)
    assert out == "1797 pictures, 16 features each\n"
    assert (tmp_path / "run" / "report.html").exists()
    Image.fromarray(drawn()[0][0]).save(tmp_path / "picture.png")
    out = example("open_with_timm.py", tmp_path / "run" / "model", tmp_path / "picture.png")
    assert out.startswith("16 features")


def test_own_loop(example: Example) -> None:
    lines = example("own_loop.py").splitlines()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0]


def test_examples_are_short_and_all_tested() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {"train_in_three_lines.py", "own_loop.py", "open_with_timm.py"}
    assert all(len((EXAMPLES / name).read_text().splitlines()) < 100 for name in names)
