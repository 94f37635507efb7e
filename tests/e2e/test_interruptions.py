"""Killed, stopped or started twice: a run goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import start_swav, swav
from tiny import TINY_METHODS, tiny_config, write_pictures

from swav import config
from swav.data.batch import Batch
from swav.methods import DeepCluster, DeepClusterConfig
from swav.recipes.train_config import TrainConfig
from swav.run_folder.checkpoint import newest_checkpoint
from swav.training.run import StoppedBySignal, train

EPOCHS, STEPS, SAVE_EVERY = 10, 40, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, the config of a run, and the run itself without interruption."""
    folder = tmp_path_factory.mktemp("interruptions")
    made = tiny_config(write_pictures(folder), epochs=EPOCHS, save_every=SAVE_EVERY)
    config.dump(made, folder / "tiny.yaml")
    whole = swav("train", "--config", "tiny.yaml", "--out", "whole", folder=folder)
    assert whole.code == 0, whole.stderr
    return folder


def assert_equal_to_whole(run: Path) -> None:
    whole = run.with_name("whole")
    one, other = newest_checkpoint(whole), newest_checkpoint(run)
    assert one is not None
    assert other is not None
    assert one.step == other.step == STEPS
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor.numpy(), other.tensors[name].numpy()), name
    assert losses(whole) == losses(run)
    for name in ("embeddings.npz", "clusters.npz"):
        with np.load(whole / name) as before, np.load(run / name) as after:
            assert all(np.array_equal(before[key], after[key]) for key in before.files)
    assert (whole / "clusters.csv").read_text() == (run / "clusters.csv").read_text()


def losses(run: Path) -> list[tuple[int, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in found]


def test_killed_twice_and_continued(folder: Path) -> None:
    run = folder / "killed"
    words = ("train", "--config", "tiny.yaml", "--out", "killed")
    for step, resume in ((4, ()), (16, ("--resume",))):
        process = start_swav((*words, *resume), folder)
        process.wait_for(lambda step=step: (run / f"checkpoints/step-{step:08d}").exists())
        process.kill(signal.SIGKILL)
        assert process.wait().code == -signal.SIGKILL
        assert json.loads((run / "run.json").read_text())["status"] == "running"
    continued = swav(*words, "--resume", folder=folder)
    assert continued.code == 0, continued.stderr
    assert "continuing at step" in continued.stderr
    assert_equal_to_whole(run)
    resumes = json.loads((run / "run.json").read_text())["resumes"]
    assert [resume.keys() for resume in resumes] == [{"step", "time"}] * 2
    assert resumes[0]["step"] < resumes[1]["step"]


def test_asked_to_stop_while_another_wants_in(folder: Path) -> None:
    run = folder / "stopped"
    words = ("train", "--config", "tiny.yaml", "--out", "stopped")
    process = start_swav((*words, "--workers", 2), folder)
    process.wait_for(lambda: (run / f"checkpoints/step-{SAVE_EVERY:08d}").exists())

    second = swav(*words, "--resume", folder=folder)
    process.kill(signal.SIGTERM)
    stopped = process.wait()

    assert second.code == 1
    assert f"in use by process {process.pid}" in second.stderr
    assert "--out" in second.stderr

    assert stopped.code == 75, stopped.stderr
    assert "continue with --resume --out stopped" in stopped.stderr
    assert stopped.stdout == ""
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "stopped"
    saved = newest_checkpoint(run)
    assert saved is not None
    assert SAVE_EVERY <= saved.step < STEPS
    assert losses(run)[-1][0] == saved.step

    continued = swav("train", "--resume", "--out", "stopped", folder=folder)
    assert continued.code == 0, continued.stderr
    assert f"continuing at step {saved.step} of {STEPS}" in continued.stderr
    assert_equal_to_whole(run)


def test_ctrl_c_stops_like_sigterm_and_twice_at_once(folder: Path) -> None:
    run = folder / "interrupted"
    words = ("train", "--config", "tiny.yaml", "--out", "interrupted", "--epochs", 1000)
    process = start_swav(words, folder)
    process.wait_for(lambda: (run / f"checkpoints/step-{SAVE_EVERY:08d}").exists())
    process.kill(signal.SIGINT)
    assert process.wait().code == 75
    saved = newest_checkpoint(run)
    assert saved is not None

    process = start_swav((*words, "--resume"), folder)
    process.wait_for(lambda: losses(run)[-1][0] > saved.step)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait().code in (75, 130)  # one or two, as the system delivers them
    assert newest_checkpoint(run) is not None


def test_nothing_saved_yet_starts_at_step_0(folder: Path) -> None:
    words = ("train", "--config", "tiny.yaml", "--epochs", 1, "--out", "early", "--resume")
    made = swav(*words, folder=folder)
    assert made.code == 0, made.stderr
    assert "no checkpoint yet: starting at step 0" in made.stderr


def test_a_stop_is_heard_while_banks_are_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = TINY_METHODS[DeepClusterConfig]
    made = tiny_config(write_pictures(tmp_path), method=method, epochs=2)
    pictures = made.data.build().load()
    prepare = DeepCluster.prepare

    def interrupted(self: DeepCluster, batches: Iterable[Batch]) -> None:
        def with_signal() -> Iterator[Batch]:
            for number, batch in enumerate(batches):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                assert number < 2, "the pass went on after the signal"
                yield batch

        prepare(self, with_signal())

    monkeypatch.setattr(DeepCluster, "prepare", interrupted)
    with pytest.raises(StoppedBySignal, match="stopped after step 0"):
        train(pictures, config=made, out=tmp_path / "run")
    monkeypatch.undo()
    train(pictures, config=made, out=tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"


SCRIPT = """
from pathlib import Path
import swav
from swav import config
from swav.recipes.train_config import TrainConfig
import swav.training.run as verb

class Log(verb.TrainingLog):
    def log(self, *given):
        raise RuntimeError("nobody catches this")

verb.TrainingLog = Log
made = config.load(TrainConfig, Path("tiny.yaml"))
swav.train(made.data.data, config=made, out="uncaught")
"""


def test_an_uncaught_exception_ends_a_script_that_has_workers(folder: Path) -> None:
    made = config.load(TrainConfig, folder / "tiny.yaml")
    config.dump(replace(made, workers=2), folder / "tiny.yaml")
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 1
    assert "nobody catches this" in finished.stderr
