"""What a run leaves comes from weights that are saved, and what is opened later from the same."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_config, write_pictures

import swav
from swav import cli, config
from swav.run_folder.checkpoint import save_checkpoint
from swav.training import run as train_module
from swav.training import session as session_module

STEPS, BEFORE = 8, 4
WORDS = ("train", "--config", "tiny.yaml", "--out", "run")
RESUME = ("train", "--resume", "--out", "run")
KEPT = ("model/model.safetensors", "report.html", "embeddings.npz", "clusters.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a config and its finished run."""
    folder = tmp_path_factory.mktemp("saved")
    made = tiny_config(
        write_pictures(folder), epochs=2, save_every=BEFORE, evaluate_at_end=False, log_every=BEFORE
    )
    config.dump(made, folder / "tiny.yaml")
    swav.train(made.data.data, config=made, out=folder / "run")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to be spoilt, where commands are run."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def full_at_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A disk that takes all checkpoints but the last, until this is undone."""

    def save(folder: Path, *, step: int, **given: Any) -> Path:
        if step == STEPS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save_checkpoint(folder, step=step, **given)

    with monkeypatch.context() as patch:
        patch.setattr(session_module, "save_checkpoint", save)
        yield patch


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run/run.json").read_text())
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "run" / name).read_bytes() for name in KEPT}


def lose_the_last(folder: Path) -> None:
    shutil.rmtree(folder / f"run/checkpoints/step-{STEPS:08d}")


def test_the_record_says_of_which_step_the_outputs_are(folder: Path) -> None:
    assert (record(folder)["status"], record(folder)["outputs_step"]) == ("finished", STEPS)


def test_nothing_is_made_of_weights_that_could_not_be_saved(
    folder: Path,
    full_at_the_end: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.rmtree("run")
    assert cli.main([*WORDS]) == cli.FAILURE
    message = capsys.readouterr().err
    for said in ("training is complete", "step 8", "No space left on device", "MB", "--resume"):
        assert said in message
    assert "training goes on" not in caplog.text
    assert not [name for name in KEPT if (folder / "run" / name).exists()]
    assert record(folder)["status"] == "failed"

    with caplog.at_level(logging.WARNING):
        swav.load("run")
    assert f"not finished (status failed): opened at step {BEFORE}" in caplog.text

    full_at_the_end.undo()
    assert cli.main([*RESUME]) == 0
    assert (record(folder)["status"], record(folder)["outputs_step"]) == ("finished", STEPS)
    assert all((folder / "run" / name).exists() for name in KEPT)


@pytest.mark.parametrize(
    "words",
    [
        ("embed", "run", "drawn.npz", "--to", "again.npz"),
        ("cluster", "run", "--to", "again.csv"),
        ("evaluate", "run", "--tasks", "knn"),
        (*WORDS[:3], "--out", "new", "--init", "run"),
    ],
    ids=["embed", "cluster", "evaluate", "start from it"],
)
def test_other_weights_than_those_of_the_outputs_are_refused(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_the_last(folder)
    assert cli.main([*words]) == cli.FAILURE
    message = capsys.readouterr().err
    for said in ("finished at step 8", "is of step 4", "backup", "--resume --out run"):
        assert said in message


def test_outputs_stay_until_there_are_newer_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lose_the_last(folder)
    for name in KEPT:
        (folder / "run" / name).write_bytes(b"earlier")
    (folder / "run/eval").mkdir()
    (folder / "run/eval/knn.json").write_text("{}")
    earlier = contents(folder)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "fit", lambda *_, **__: 1 / 0)
        assert cli.main([*RESUME]) == cli.FAILURE
    assert f"finished at step {STEPS}, but" in caplog.text
    assert contents(folder) == earlier
    assert record(folder)["status"] == "failed"
    assert record(folder)["outputs_step"] == STEPS
    with caplog.at_level(logging.WARNING):
        swav.load("run")
    assert f"opened at step {BEFORE}; its outputs are of step {STEPS}" in caplog.text

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:  # trained and saved, but there is room for no output
        patch.setattr("swav.training.outputs.save_timm", full)
        assert cli.main([*RESUME]) == cli.FAILURE
    assert contents(folder) == earlier

    assert cli.main([*RESUME]) == 0
    assert not {name for name, content in contents(folder).items() if content == earlier[name]}
    assert not (folder / "run/eval/knn.json").exists()
    run = swav.load("run")
    swav.embed("run", to="again.npz")
    with np.load("again.npz") as again, np.load("run/embeddings.npz") as kept:
        assert np.array_equal(again["embeddings"], kept["embeddings"])
    assert run.folder == Path("run")


@pytest.mark.usefixtures("full_at_the_end")
def test_a_full_disk_does_not_hide_what_ended_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("run")
    (folder / "run").mkdir()
    (folder / "run/train.log").symlink_to("/dev/full")
    write = train_module.write_record

    def full(folder: Path, **changes: Any) -> None:
        if changes.get("status") == "failed":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, **changes)

    monkeypatch.setattr(train_module, "write_record", full)
    assert cli.main([*WORDS]) == cli.FAILURE
    assert "training is complete" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", '{"status": "finis', "[]", None], ids=str)
def test_a_damaged_record_is_named_and_made_again(
    text: str | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "run/run.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    verbs = [("embed", "run", "drawn.npz", "--to", "again.npz"), RESUME][: 1 if text is None else 2]
    for words in verbs:
        assert cli.main([*words]) == cli.FAILURE
        message = capsys.readouterr().err
        assert "run/run.json" in message
        assert "swav train --resume --out run" in message
    path.unlink(missing_ok=True)
    if text == "":  # and with some steps to go
        lose_the_last(folder)
    assert cli.main([*RESUME]) == 0
    assert record(folder)["num_images"] == 64
    assert len(record(folder)["resumes"]) == (text == "")
    assert record(folder)["outputs_step"] == STEPS
    swav.load("run")
