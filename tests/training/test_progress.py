"""How far a training is, shown on a terminal and elsewhere."""

import errno
import io
import os
import pty
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from swav.engine.objective import Clock
from swav.methods import SwAVConfig
from swav.training.bar import PicturesProgress
from swav.training.progress import Progress, TrainingLog

CLOCK = Clock(step=0, epoch=0, steps_per_epoch=10, total_steps=100, images=0)
VALUES: dict[str, float | Tensor] = {
    "loss": 3.2,
    "ln_k": 4.0,
    "code_entropy": torch.tensor(0.41),
    "prototypes_used": 0.97,
    "images_per_second": 812.4,
}


def test_plain_lines_when_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = 0.0
    with Progress(CLOCK, now=lambda: seconds) as progress:
        for step in range(5, 101, 5):
            seconds = step * 0.8  # 4 s an update
            progress.update(replace(CLOCK, step=step, epoch=step // 10), VALUES)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.split()[1] for line in lines] == [
        f"{step}/100" for step in (5, 20, 35, 50, 65, 80, 95, 100)
    ]
    assert lines[1] == (
        "step 20/100  epoch 2  loss 3.200 (0.800 below ln K)  code entropy 0.41  "
        "prototypes used 97%  812 images/s  0:01:04 left"
    )
    assert "\x1b" not in captured.err


def test_a_resumed_run_does_not_count_the_steps_before(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = 0.0
    with Progress(replace(CLOCK, step=80), now=lambda: seconds) as progress:
        seconds = 10.0
        progress.update(replace(CLOCK, step=90), {"loss": 1.0})
    assert capsys.readouterr().err == "step 90/100  epoch 0  loss 1.000  0:00:10 left\n"


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(CLOCK) as progress:
            progress.update(replace(CLOCK, step=20), VALUES)
            print("a result")
        monkeypatch.undo()
        shown = ""
        while "left" not in shown:  # a terminal hands on what is written bit by bit
            shown += os.read(ours, 100_000).decode()
    os.close(ours)
    for part in ("20/100", "loss 3.200 (0.800 below ln K)", "prototypes used 97%", "left"):
        assert part in shown
    assert "a result" not in shown
    assert capsys.readouterr().out == "a result\n"


def test_a_stderr_that_went_away_does_not_stop_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, *_: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    with Progress(CLOCK) as progress:
        progress.update(replace(CLOCK, step=1), VALUES)


def test_a_pass_over_pictures_says_how_fast_and_how_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = 0.0
    with PicturesProgress(5000, now=lambda: seconds) as progress:
        for done in range(100, 5001, 100):
            seconds = done / 200
            progress.update(done)
    assert capsys.readouterr().err.splitlines() == [
        "2,000/5,000 pictures  200 pictures/s  0:00:15 left",
        "4,000/5,000 pictures  200 pictures/s  0:00:05 left",
    ]


def test_a_warning_of_collapse_that_proves_wrong_is_withdrawn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = TrainingLog.__new__(TrainingLog)
    log._has_warned = False
    log._session = SimpleNamespace(config=SimpleNamespace(method=SwAVConfig()))
    for step, loss in ((10, 3.9), (40, 4.0), (50, 3.99), (60, 2.9), (70, 2.8)):
        values = {"loss": loss, "ln_k": 4.0, "prototypes_used": 0.5}
        log._warn_of_collapse(replace(CLOCK, step=step, warmup_steps=20), values)
    warned, withdrawn = (record.getMessage() for record in caplog.records)
    assert warned.startswith("step 40: the loss 4.0000 is still within 1 % of ln K = 4.0000")
    assert withdrawn.startswith("step 60: the warning of a collapse is withdrawn: the loss is 2.9")


def test_a_loss_above_ln_k_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(CLOCK) as progress:
        progress.update(replace(CLOCK, step=100), {"loss": 4.1, "ln_k": 4.0})
    assert "loss 4.100 (0.100 above ln K)" in capsys.readouterr().err
