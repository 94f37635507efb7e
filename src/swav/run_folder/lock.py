"""A lock on a run folder that the kernel frees when its holder dies, however it dies."""

import errno
import fcntl
import json
import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from swav.run_folder import layout

logger = logging.getLogger(__name__)

_held: set[Path] = set()
"""Folders locked by this process. A second lock on one would be granted, and closing either
frees both, so this process must never open a lock file twice."""


class FolderInUseError(ValueError):
    """Another run is writing into the folder."""


class RunLock:
    """Hold ``run.lock`` in a run folder for the length of a ``with`` block, on one rank.

    The lock is ``fcntl.lockf``: free at once after ``kill -9``, and not inherited by forked
    workers, so that an orphan of them cannot keep it. The text inside only serves messages.
    """

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        self._descriptor = -1

    def __enter__(self) -> "RunLock":
        """Take the lock; the folder is made if there is none.

        Raises:
            FolderInUseError: naming host, process and start of the run that holds it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder = self._folder.resolve()
        if self._folder in _held:
            raise self._in_use({"host": socket.gethostname(), "pid": os.getpid()})
        descriptor = os.open(
            self._folder / layout.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        try:
            self._lock(descriptor)
            self._sign(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        """Free the lock. The file stays: removing it could free another run's lock."""
        _held.discard(self._folder)
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            logger.warning("could not empty %s: %s", self._folder / layout.LOCK, error)
        finally:
            os.close(self._descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._in_use(_holder(descriptor)) from None
            # network disks without a lock service: a warning, as nothing could run there otherwise
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
            logger.warning(
                "%s offers no locks (%s): make sure that no other run writes into it",
                self._folder,
                error,
            )

    def _sign(self, descriptor: int) -> None:
        """Write who holds the lock, after a look at who did not put it back."""
        before = _holder(descriptor)
        host = socket.gethostname()
        # on this host the kernel has just said that nobody holds it; of others it may not know
        if before.get("host", host) != host:
            logger.warning(
                "the last run in %s, process %s on %s, was killed or is still running where this "
                "machine does not see its lock: make sure that it is gone",
                self._folder,
                before.get("pid"),
                before["host"],
            )
        started = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"host": host, "pid": os.getpid(), "started": started})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text.encode(), 0)
        except OSError as error:
            logger.warning("could not write into %s: %s", self._folder / layout.LOCK, error)

    def _in_use(self, holder: dict[str, object]) -> FolderInUseError:
        return FolderInUseError(
            f"{self._folder} is in use by process {holder.get('pid', 'unknown')} on "
            f"{holder.get('host', 'an unknown host')}, started "
            f"{holder.get('started', 'just now')}: stop that run, wait for its end, or choose "
            "another folder with --out"
        )


def _holder(descriptor: int) -> dict[str, object]:
    """Return what the holder wrote about itself; nothing if it has not yet."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
