"""A loading process that is killed is replaced once; a run that loses more is saved."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import drawn, tiny_config

from swav.data import processes
from swav.data.loader import StepViews
from swav.data.processes import LoadingError
from swav.run_folder.checkpoint import newest_checkpoint
from swav.training.run import train

BAD_STEP = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in files, which workers read one by one."""
    for number, pixels in enumerate(drawn()[0]):
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    return tmp_path


def spoilt(monkeypatch: pytest.MonkeyPatch, fault: Any, times: int) -> None:
    """Have the worker that makes a step run into a fault, for so many times."""
    left = np.memmap("left", dtype=np.int64, mode="w+", shape=1)  # shared with workers
    left[0] = times
    make = StepViews.__getitem__

    def get(self: StepViews, number: int) -> Any:
        if number == BAD_STEP and left[0] > 0:
            left[0] -= 1
            fault(self)
        return make(self, number)

    monkeypatch.setattr(StepViews, "__getitem__", get)


def killed(_: StepViews) -> None:
    while Path("run").exists() and not Path("run/metrics.jsonl").exists():
        time.sleep(0.01)  # until a step is done: workers are ahead of the training
    os.kill(os.getpid(), signal.SIGKILL)


def states(run: Path) -> dict[str, Any]:
    newest = newest_checkpoint(run)
    assert newest is not None
    return {name: tensor.tolist() for name, tensor in newest.tensors.items()}


def test_killed_once_nothing_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(folder)
    settings: dict[str, Any] = {"epochs": 2, "workers": 2, "evaluate_at_end": False}
    config = tiny_config(data, **settings)
    whole = train(data, config=config, out="whole").folder
    spoilt(monkeypatch, killed, times=1)
    run = train(data, config=config, out="run").folder
    assert "ended with exit code -9" in caplog.text
    assert "others take over" in caplog.text
    assert states(run) == states(whole)


def test_killed_again_the_state_is_saved(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, run = str(folder), Path("run")
    config = tiny_config(data, epochs=2, workers=2, evaluate_at_end=False, save_every=100)
    spoilt(monkeypatch, killed, times=2)
    with pytest.raises(LoadingError, match=r"second time; step \d is saved: .* --resume"):
        train(data, config=config, out=run)
    newest = newest_checkpoint(run)
    assert newest is not None
    assert 1 <= newest.step <= BAD_STEP
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert train(data, config=config, out=run, resume=True).folder == run


def test_a_worker_that_hangs_is_named_with_its_picture(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "WORKER_TIMEOUT_SECONDS", 3)
    data, run = str(folder), Path("run")
    config = tiny_config(data, epochs=2, workers=1, evaluate_at_end=False)
    config = replace(config, data=replace(config.data, max_memory_gib=0.0))

    def hang(views: StepViews) -> None:
        monkeypatch.setattr(type(views.pictures), "reduced", lambda *_: time.sleep(600))

    spoilt(monkeypatch, hang, times=1)
    with pytest.raises(LoadingError, match=r"nothing for 3 s, while reading '\d\d.png'.*--resume"):
        train(data, config=config, out=run)
    assert newest_checkpoint(run) is not None
