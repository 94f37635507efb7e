"""What a run writes: whole lines, each step once, and never a reason to stop."""

import errno
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from swav.run_folder.metrics_log import MetricsLog


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_one_strict_json_object_a_line(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write({"step": 10, "loss": torch.tensor(0.5), "lr": 0.1})
        assert lines_of(tmp_path) == [{"step": 10, "loss": 0.5, "lr": 0.1}]  # at once
        log.write({"step": 20, "loss": float("nan"), "norm": torch.tensor(torch.inf)})
    assert lines_of(tmp_path)[1] == {"step": 20, "loss": None, "norm": None}
    assert isinstance(lines_of(tmp_path)[1]["step"], int)


@pytest.mark.parametrize("half", [b"", b'{"step": 40, "lo', b"\xff\x00", b'{"step": 10', b"[1]\n7"])
def test_resume_leaves_each_step_once(tmp_path: Path, half: bytes) -> None:
    log = MetricsLog(tmp_path)
    for step in (10, 20, 30):
        log.write({"step": step, "loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(half)
    resumed = MetricsLog(tmp_path)
    resumed.truncate_to(20)
    for step in (30, 40):
        resumed.write({"step": step, "loss": 2.0})
    found = [(line["step"], line["loss"]) for line in lines_of(tmp_path)]
    assert found == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_nothing_to_cut_back(tmp_path: Path) -> None:
    MetricsLog(tmp_path).truncate_to(0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported_once_and_half_lines_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = MetricsLog(tmp_path)
    log.write({"step": 1})
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, line: real(file, line[:5]))
    log.write({"step": 2})

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.write({"step": 3})
    monkeypatch.setattr(os, "write", real)
    log.write({"step": 4})
    assert lines_of(tmp_path) == [{"step": 1}, {"step": 4}]
    assert len(caplog.records) == 1
    assert "training goes on" in caplog.text


def test_a_folder_that_is_gone_does_not_stop_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = MetricsLog(tmp_path / "gone")
    log.write({"step": 1})
    log.write({"step": 2})
    assert len(caplog.records) == 1


def test_tensorboard_that_is_asked_for_and_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'swav\[tensorboard\]'"):
        MetricsLog(tmp_path, tensorboard=True)
    MetricsLog(tmp_path)


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, *, purge_step: int) -> None:
            seen.append((folder, purge_step))

        def add_scalar(self, name: str, number: float, step: int) -> None:
            seen.append((name, number, step))

        def close(self) -> None:
            seen.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    vars(module)["SummaryWriter"] = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    with MetricsLog(tmp_path, tensorboard=True) as log:
        log.write({"step": 7, "loss": torch.tensor(0.5), "lr": float("nan")})
        log.write({"step": 8, "loss": 0.25})
    folder = str(tmp_path / "tensorboard")
    assert seen == [(folder, 7), ("loss", 0.5, 7), ("loss", 0.25, 8), "closed"]
