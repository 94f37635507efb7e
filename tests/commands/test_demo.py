"""``swav demo`` on a few pictures: two runs, and one page that shows the scores of both."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swav import cli, commands
from swav.commands.demo import free_folder
from swav.recipes import TrainConfig, make_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two classes, with too few pictures to be compared without labels."""
    folder = tmp_path_factory.mktemp("demo") / "photos"
    generator = np.random.default_rng(0)
    for label, low in (("dark", 0), ("light", 128)):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(low, low + 128, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def short(*values: Any, **named: Any) -> TrainConfig:
    """Return the config that is asked for, with one epoch of few pictures a step."""
    config = make_config(*values, **named)
    return replace(config, epochs=1, optim=replace(config.optim, batch_size=8))


def test_both_runs_stand_on_one_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.demo, "make_config", short)
    assert cli.main(["demo", "--data", str(data)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "runs/demo/report.html"
    assert sum(line.startswith("swav ") for line in said) == 3
    scratch = json.loads(Path("runs/demo-scratch/eval/knn.json").read_text())
    beside = json.loads(Path("runs/demo/eval/knn.json").read_text())["baselines"]
    assert beside["scratch"] == scratch["metrics"]
    assert set(beside) == {"start", "scratch", "random", "pixels", "patch-kmeans"}
    page = Path("runs/demo/report.html").read_text()
    assert "Run from scratch" in page
    assert json.loads(Path("runs/demo/run.json").read_text())["start"]["layout"] == "lite0"


def test_a_second_demo_takes_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_folder() == Path("runs/demo")
    Path("runs/demo-scratch").mkdir(parents=True)
    assert free_folder() == Path("runs/demo-2")
