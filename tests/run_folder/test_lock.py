"""The lock of a run folder: one holder, and free the moment the holder is dead."""

import errno
import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swav.run_folder.lock import FolderInUseError, RunLock

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@contextmanager
def holder(run: Path, *, with_worker: bool = False) -> Iterator[int]:
    """Run a process that holds the lock and sleeps; yield its id; kill it."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with RunLock(run):
                if with_worker and os.fork() == 0:
                    signal.alarm(20)  # the orphan's end
                os.write(tell, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        for _ in range(1 + with_worker):
            assert select.select([ready], [], [], 10)[0]
            assert os.read(ready, 1) == b"x"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with holder(tmp_path) as pid:
        started = json.loads((tmp_path / "run.lock").read_text())["started"]
        with pytest.raises(FolderInUseError) as error, RunLock(tmp_path):
            pytest.fail("two holders")
        for fact in (str(tmp_path), str(pid), socket.gethostname(), started, "--out"):
            assert fact in str(error.value)
        with pytest.raises(FolderInUseError), RunLock(tmp_path):  # asking frees nothing
            pytest.fail("two holders")


@pytest.mark.parametrize("with_worker", [False, True])
def test_free_at_once_after_kill_9_even_if_a_worker_lives(
    tmp_path: Path, with_worker: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(tmp_path, with_worker=with_worker):
        pass
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    assert not caplog.text


def test_the_same_process_cannot_take_it_twice(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with RunLock(tmp_path):
        with pytest.raises(FolderInUseError, match=str(os.getpid())), RunLock(tmp_path / "link"):
            pytest.fail("two holders")
        assert not can_lock_elsewhere(tmp_path)
    assert can_lock_elsewhere(tmp_path)


def can_lock_elsewhere(run: Path) -> bool:
    child = os.fork()
    if child == 0:
        descriptor = os.open(run / "run.lock", os.O_RDWR)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_left_empty_and_can_be_taken_again(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "new" / "run")
    for _ in range(2):
        with lock:
            pass
        assert (tmp_path / "new" / "run" / "run.lock").read_bytes() == b""


def test_freed_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunLock(tmp_path):
        raise KeyboardInterrupt
    assert can_lock_elsewhere(tmp_path)


def test_a_killed_run_of_another_host_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run.lock").write_text(json.dumps({"host": "far-away", "pid": 7}))
    with RunLock(tmp_path):
        assert "process 7 on far-away" in caplog.text


def test_text_that_is_not_ours_is_no_obstacle(tmp_path: Path) -> None:
    for text in ("", "[]", "{half", "\0" * 9000):
        (tmp_path / "run.lock").write_text(text)
        with RunLock(tmp_path):
            assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


def test_a_disk_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with RunLock(tmp_path):
        assert "offers no locks" in caplog.text
