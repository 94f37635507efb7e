"""Checkpoints: a valid one survives every kill, every damaged file and every full disk."""

import errno
import hashlib
import itertools
import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from swav.run_folder import checkpoint
from swav.run_folder.checkpoint import (
    CheckpointError,
    NewerSchemaError,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)

KILLED = 9
CHANGING_CALLS = ("mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir")
CALLS = (*CHANGING_CALLS, "scandir", "statvfs")


def tensors_of(value: int) -> dict[str, Tensor]:
    return {"model/weight": torch.full((300,), float(value)), "model/steps": torch.tensor(value)}


def save(run: Path, step: int, *, value: int | None = None, keep: int = 2) -> Path:
    value = step if value is None else value
    return save_checkpoint(
        run, step=step, tensors=tensors_of(value), meta={"value": value}, keep=keep
    )


def value_of(run: Path) -> int:
    """Return the one number that all of the newest checkpoint agrees on."""
    newest = newest_checkpoint(run)
    assert newest is not None
    expected = tensors_of(newest.meta["value"])
    assert newest.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(newest.tensors[key], tensor)
    return int(newest.meta["value"])


def names_in(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def num_valid(run: Path) -> int:
    folders = [path for path in (run / "checkpoints").glob("step-*") if path.suffix != ".bad"]
    return len([load_checkpoint(folder) for folder in folders])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with checkpoints of steps 1 and 2; files are written in small pieces.

    Nothing here needs a real fsync, which takes most of the time of a save.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 500)
    save(tmp_path / "run", 1)
    save(tmp_path / "run", 2)
    return tmp_path / "run"


def break_call(
    patch: pytest.MonkeyPatch, at: int, fault: Callable[[], None], calls: tuple[str, ...] = CALLS
) -> "itertools.count[int]":
    """Make call number ``at`` to the operating system fail: before it, or half-way in a write."""
    numbers = itertools.count(1)

    def broken(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(numbers) == at:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                if name == "close":
                    real(*arguments)
                fault()
            return real(*arguments, **options)

        return call

    for name in calls:
        patch.setattr(os, name, broken(name, vars(os)[name]))
    return numbers


def copies_of(run: Path) -> Iterator[tuple[int, Path]]:
    """Yield 1, 2, 3, ... with a fresh copy of the run each."""
    for at in itertools.count(1):
        copy = run.with_name(f"copy-{at}")
        shutil.copytree(run, copy)
        yield at, copy
        shutil.rmtree(copy)


def save_and_die(run: Path, *, at: int, step: int, value: int, synced: Path) -> bool:
    """Save in a child that is killed at its ``at``-th call; return whether it got that far.

    ``synced`` gets inode and size of every file that was on the disk for certain.
    """
    child = os.fork()
    if child == 0:
        patch = pytest.MonkeyPatch()
        break_call(patch, at, lambda: os._exit(KILLED))
        fsync = os.fsync
        with synced.open("w", buffering=1) as record:

            def recorded(descriptor: int) -> None:
                fsync(descriptor)
                state = os.fstat(descriptor)
                record.write(f"{state.st_ino} {state.st_size}\n")

            patch.setattr(os, "fsync", recorded)
            try:
                save(run, step, value=value)
            finally:
                os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == KILLED


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("step", [3, 2], ids=["next step", "same step"])
def test_kill_and_power_cut_at_every_call_leave_the_old_or_the_new(run: Path, step: int) -> None:
    synced = run.with_name("synced")
    outcomes = []
    for at, copy in copies_of(run):
        safe_files = set(inodes(copy))
        if not save_and_die(copy, at=at, step=step, value=30, synced=synced):
            assert value_of(copy) == 30
            break
        assert num_valid(copy) >= 2
        outcomes.append(value_of(copy))
        assert outcomes[-1] in (2, 30)

        numbers = [int(number) for number in synced.read_text().split()]
        sizes = dict(zip(numbers[::2], numbers[1::2], strict=True))
        for inode, path in inodes(copy).items():
            if inode not in safe_files:
                os.truncate(path, sizes.get(inode, 0))  # what was not synced is gone
        assert num_valid(copy) >= 2
        assert value_of(copy) == outcomes[-1]
        assert not list((copy / "checkpoints").glob("*.bad"))

        save(copy, 4)  # the next run sweeps up
        assert value_of(copy) == 4
        assert names_in(copy)[1:] == ["step-00000004"]
        assert len(names_in(copy)) == 2
    assert len(outcomes) > 30  # calls that a kill was tried at
    assert outcomes == sorted(outcomes)  # published at one moment


def inodes(run: Path) -> dict[int, Path]:
    return {path.stat().st_ino: path for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", [3, 2], ids=["next step", "same step"])
def test_error_at_every_call_keeps_the_old_and_leaves_nothing(run: Path, step: int) -> None:
    codes = itertools.cycle([errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
    num_failed = 0
    for at, copy in copies_of(run):
        code = next(codes)
        fail = partial(raise_error, code)
        with pytest.MonkeyPatch.context() as patch:
            numbers = break_call(patch, at, fail)
            error = error_of_save(copy, step)
            was_broken = next(numbers) > at
        if error is not None:
            assert error.errno == code
            assert value_of(copy) in (2, 30)  # 30: only the last sync of the folder failed
            assert not list((copy / "checkpoints").glob(".tmp-*"))
        else:
            assert value_of(copy) == 30
        save(copy, 4)
        assert value_of(copy) == 4
        assert len(names_in(copy)) == 2
        num_failed += error is not None
        if not was_broken:
            break
    assert num_failed > 20


def error_of_save(run: Path, step: int) -> OSError | None:
    try:
        save(run, step, value=30)
    except OSError as error:
        return error
    return None


def raise_error(code: int) -> None:
    raise OSError(code, os.strerror(code))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_real_limit_of_the_file_size(run: Path) -> None:
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            save(run, 3)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == errno.EFBIG
    assert names_in(run) == ["step-00000001", "step-00000002"]
    assert value_of(run) == 2


def with_free_bytes(patch: pytest.MonkeyPatch, free: Callable[[], int]) -> None:
    real = os.statvfs

    class Disk:
        f_blocks, f_frsize = 10**9, 1

        def __init__(self, path: Path) -> None:
            assert real(path).f_blocks
            self.f_bavail = free()

    patch.setattr(os, "statvfs", Disk)


def test_a_full_disk_is_seen_before_anything_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free_bytes(monkeypatch, lambda: 1000)
    monkeypatch.setattr(checkpoint, "_write", lambda *_: pytest.fail("it wrote"))
    with pytest.raises(OSError, match="MB free, the checkpoint needs") as error:
        save(run, 3)
    assert error.value.errno == errno.ENOSPC
    assert names_in(run) == ["step-00000001", "step-00000002"]


def test_room_is_made_from_the_oldest_but_two_stay(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (3, 4, 5):
        save(run, step, keep=9)
    with_free_bytes(monkeypatch, lambda: 10**6 if len(names_in(run)) <= 3 else 1000)
    save(run, 6, keep=9)
    assert names_in(run) == [f"step-0000000{step}" for step in (3, 4, 5, 6)]
    with_free_bytes(monkeypatch, lambda: 1000)
    with pytest.raises(OSError, match="free"):
        save(run, 7, keep=9)
    assert names_in(run) == ["step-00000005", "step-00000006"]


@pytest.mark.parametrize("keep", [2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (1, 7, 20, 100):
        save(tmp_path, step, keep=keep)
    assert names_in(tmp_path) == [f"step-{step:08d}" for step in (1, 7, 20, 100)[-keep:]]


def test_the_published_one_is_never_pruned(run: Path) -> None:
    save(run, 10)
    save(run, 20)
    save(run, 5)
    assert "step-00000005" in names_in(run)


def test_same_step_is_replaced(run: Path) -> None:
    save(run, 2, value=77)
    assert value_of(run) == 77
    assert names_in(run) == ["step-00000001", "step-00000002"]


def test_a_failed_prune_is_a_warning(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(shutil, "rmtree", busy)
    save(run, 3)
    monkeypatch.undo()
    assert value_of(run) == 3
    assert "could not remove the old checkpoint" in caplog.text


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def block(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def nest(path: Path) -> None:
    path.write_bytes(b"[" * 60_000)


def bloat(path: Path) -> None:
    path.write_bytes(b" " * 100_000 + path.read_bytes())


class Bomb:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._canary),)


def bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parents[2] / "canary")))


@pytest.mark.parametrize("file", ["state.safetensors", "meta.json", "MANIFEST.json"])
@pytest.mark.parametrize(
    "damage", [truncate, empty, flip, append, Path.unlink, block, nest, bloat, bomb]
)
def test_a_damaged_file_means_the_checkpoint_before(
    run: Path, file: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(run / "checkpoints" / "step-00000002" / file)
    assert value_of(run) == 1
    assert names_in(run) == ["step-00000001", "step-00000002.bad"]
    assert "step-00000002" in caplog.text
    assert file in caplog.text
    assert not (run / "canary").exists()

    save(run, 2)  # gets there again, and is damaged again
    damage(run / "checkpoints" / "step-00000002" / file)
    assert value_of(run) == 1
    assert names_in(run) == ["step-00000001", "step-00000002.bad"]


def test_every_bit_of_the_manifest_matters(run: Path) -> None:
    path = run / "checkpoints" / "step-00000002" / "MANIFEST.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(path.parent)


def test_a_replaced_one_is_put_back_if_its_successor_never_came(run: Path) -> None:
    (run / "checkpoints" / "step-00000002").rename(run / "checkpoints" / "step-00000002.old")
    found = newest_checkpoint(run, repair=False)
    assert found is not None
    assert found.folder.name == "step-00000002.old"
    found = newest_checkpoint(run)
    assert found is not None
    assert found.folder == run / "checkpoints" / "step-00000002"
    assert names_in(run) == ["step-00000001", "step-00000002"]
    assert value_of(run) == 2


def test_a_reader_without_the_lock_changes_nothing(run: Path) -> None:
    flip(run / "checkpoints" / "step-00000002" / "meta.json")
    found = newest_checkpoint(run, repair=False)
    assert found is not None
    assert found.step == 1
    assert names_in(run) == ["step-00000001", "step-00000002"]


def test_all_damaged_is_an_error_each_time(run: Path) -> None:
    flip(run / "checkpoints" / "step-00000001" / "state.safetensors")
    (run / "checkpoints" / "step-00000002" / "meta.json").unlink()
    with pytest.raises(CheckpointError) as error:
        newest_checkpoint(run)
    assert "step-00000001" in str(error.value)
    assert "state.safetensors has not the SHA-256" in str(error.value)
    assert "step-00000002/meta.json is missing" in str(error.value)
    with pytest.raises(CheckpointError, match="found damaged before"):  # no silent fresh start
        newest_checkpoint(run)


def test_none_yet(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints" / ".tmp-00000001-abc").mkdir(parents=True)
    (tmp_path / "checkpoints" / "notes").mkdir()
    assert newest_checkpoint(tmp_path) is None


def test_unreadable_now_is_skipped_but_not_called_damaged(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if "step-00000002" in str(path):
            raise OSError(errno.EIO, "input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert value_of(run) == 1
    monkeypatch.undo()
    assert value_of(run) == 2


def forge(run: Path, **changes: object) -> None:
    """Change the manifest of step 2, with the right hash of whatever the state file is now."""
    folder = run / "checkpoints" / "step-00000002"
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    content = (folder / "state.safetensors").read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["state.safetensors"] = entry
    manifest |= changes
    manifest["digest"] = checkpoint.digest_of(manifest)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("head", [b"\xff" * 8, b"\x10" + b"\0" * 7 + b"{" * 16, b""])
def test_a_state_file_that_is_none_though_its_hash_is_right(run: Path, head: bytes) -> None:
    (run / "checkpoints" / "step-00000002" / "state.safetensors").write_bytes(head)
    forge(run)
    assert value_of(run) == 1


def test_a_copied_folder_is_not_another_step(run: Path) -> None:
    shutil.copytree(run / "checkpoints/step-00000001", run / "checkpoints/step-00000009")
    assert value_of(run) == 2


def test_a_later_schema_is_refused_and_left_alone(run: Path) -> None:
    forge(run, schema=checkpoint.SCHEMA + 1)
    with pytest.raises(NewerSchemaError, match="upgrade swav"):
        newest_checkpoint(run)
    assert names_in(run) == ["step-00000001", "step-00000002"]


def test_a_flipped_digit_of_the_schema_is_damage(run: Path) -> None:
    path = run / "checkpoints" / "step-00000002" / "MANIFEST.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 9'))
    assert value_of(run) == 1
    assert names_in(run) == ["step-00000001", "step-00000002.bad"]


def test_a_manifest_of_an_earlier_version_has_no_digest(run: Path) -> None:
    path = run / "checkpoints" / "step-00000002" / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    path.write_text(json.dumps(manifest))
    assert value_of(run) == 2


def test_leftovers_are_swept(run: Path) -> None:
    for name in (".tmp-00000002-aa", ".tmp-removed-bb"):
        (run / "checkpoints" / name).mkdir()
        (run / "checkpoints" / name / "state.safetensors").write_bytes(b"half")
    save(run, 3)
    assert names_in(run) == ["step-00000002", "step-00000003"]


def test_round_trip_of_every_kind_of_tensor(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 8, generator=generator)
    tensors = {
        "float32": rows,
        "bfloat16": rows.bfloat16(),
        "float16": rows.half(),
        "float64": rows.double() / 3,
        "int64": torch.tensor([2**62, -(2**62)]),
        "bool": rows > 0,
        "0-d": torch.tensor(3),
        "0-d float": torch.tensor(0.1, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "not finite": torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0]),
        "name with ünicode/and.dots": torch.ones(1),
    }
    meta = {"epoch": 3, "loss": 0.1 + 0.2, "ü": [1, None, True], "nested": {"a": "b"}}
    save_checkpoint(tmp_path, step=12, tensors=tensors, meta=meta)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.meta) == (12, meta)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].shape == tensor.shape
        assert bits(found.tensors[name]) == bits(tensor)


def bits(tensor: Tensor) -> list[int]:
    return tensor.reshape(-1).view(torch.uint8).tolist()
