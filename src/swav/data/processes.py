"""Processes that make the items of a dataset: started, watched, replaced once, and ended."""

import atexit
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable
from weakref import WeakSet

from torch.utils.data import DataLoader, Dataset

# torch waits for ever by default, also for a process that hangs
WORKER_TIMEOUT_SECONDS = 600

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class LoadingError(ChildProcessError):
    """Pictures no longer come from the processes that load them."""


@runtime_checkable
class ReadsPictures(Protocol):
    """A dataset that knows what its processes are at."""

    def being_read(self) -> list[str]:
        """Return the names of the pictures that are being read now."""


def items_of(
    dataset: Dataset[Item], numbers: Sequence[int], *, workers: int, pin_memory: bool = False
) -> Iterator[Item]:
    """Yield some items of a dataset in order; they do not depend on the number of workers.

    Loading processes start now. If one is killed, others take over once, at the item that is due.

    Raises:
        LoadingError: if one hangs, or another is killed.
    """
    start = partial(_start, dataset, workers=workers, pin_memory=pin_memory)
    return _watched(start, numbers, start(numbers), dataset)


def _watched(
    start: Callable[[Sequence[int]], "_Started"],
    numbers: Sequence[int],
    started: "_Started",
    dataset: Dataset[Item],
) -> Iterator[Item]:
    done, restarts = 0, 1
    while done < len(numbers):
        try:
            item = _next(started)
        except (RuntimeError, OSError, EOFError) as error:  # some of a pipe that is no more
            killed = _killed(started.processes)
            if killed and restarts:
                restarts -= 1
                logger.warning("%s; others take over", _fate(killed[0]))
            elif killed:
                raise LoadingError(f"{_fate(killed[0])}, for the second time") from error
            elif str(error).startswith("DataLoader timed out"):
                raise LoadingError(_hung(dataset)) from error
            else:
                raise
        else:
            yield item
            done += 1
            continue
        # the others of these would wait for somebody to take what they made
        for process in started.processes:
            process.kill()
        started = start(numbers[done:])


def _next(started: "_Started") -> Any:
    """Return the next item, or raise a RuntimeError as soon as a process ends that should not."""
    _awaited.update(started.processes)
    try:
        # after the set, so that one that ends from here on is noticed by its signal
        _raise_if_ended()
        return next(started.items)
    finally:
        _awaited.clear()


def _raise_if_ended(*_: object) -> None:
    if any(process.exitcode for process in _awaited):
        raise RuntimeError("a loading process ended")


def _killed(processes: Sequence[BaseProcess]) -> list[BaseProcess]:
    """Return those that ended as they should not; a pipe may break a moment before."""
    if processes and wait([process.sentinel for process in processes], timeout=1):
        for process in processes:
            process.join(0.1)  # its files are closed a moment before it has an exit code
    return [process for process in processes if process.exitcode]


def _fate(process: BaseProcess) -> str:
    memory = ", perhaps for want of memory" if process.exitcode == -signal.SIGKILL else ""
    return (
        f"loading process {process.pid} ended with exit code {process.exitcode} (below 0: minus "
        f"the signal that killed it){memory}"
    )


def _hung(dataset: Dataset[Item]) -> str:
    names = dataset.being_read() if isinstance(dataset, ReadsPictures) else []
    reading = f", while reading {', '.join(map(repr, names))}" if names else ""
    return (
        f"a loading process has given nothing for {WORKER_TIMEOUT_SECONDS} s{reading}: is a disk "
        "or network folder out of reach?"
    )


class _Started(NamedTuple):
    items: Iterator[Any]
    processes: list[BaseProcess]


def _start(
    dataset: Dataset[Item], numbers: Sequence[int], *, workers: int, pin_memory: bool
) -> _Started:
    # torch gives no public way to its processes
    earlier = set(active_children())
    items = iter(
        DataLoader(
            dataset,
            batch_size=None,  # an item is a batch already
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            timeout=WORKER_TIMEOUT_SECONDS if workers else 0,
            pin_memory=pin_memory,
            # forked processes share the decoded set and the cache; others would get a copy each
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_ignore_signals if workers else None,
        )
    )
    processes = list(set(active_children()) - earlier)
    if workers and threading.current_thread() is threading.main_thread():
        # torch's handler raises wherever the program is, in the middle of an update perhaps
        signal.signal(signal.SIGCHLD, _raise_if_ended)
    _workers.update(processes)
    return _Started(items, processes)


def _end_workers() -> None:
    """End at exit what an uncaught exception kept alive.

    ``multiprocessing`` would send SIGTERM, which workers do not hear, and wait for ever.
    """
    for process in _workers:
        if process.is_alive():
            process.kill()


_workers: WeakSet[BaseProcess] = WeakSet()
_awaited: set[BaseProcess] = set()
"""Those that an item is awaited from just now."""
atexit.register(_end_workers)  # runs before the hook of multiprocessing, which torch has imported


def _ignore_signals(_worker: int) -> None:
    """Leave stopping to the parent, which still needs batches until it has saved."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
