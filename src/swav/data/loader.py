"""From a set of pictures to batches of views: which pictures a step sees, and their views.

The unit of loading is a whole micro-batch. Its number fixes epoch, pictures and every random
draw, so any number of workers makes the same bytes, any number of ranks the same views (the last
bit of a sum may differ), and resuming needs no replay.
"""

import atexit
import logging
import mmap
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from swav import distributed
from swav.data.batch import AnyBatch, Batch
from swav.data.eval_transform import Picture
from swav.data.random import Stream
from swav.data.sources.decode import Decoded, UnreadablePicture
from swav.data.sources.groups import ImageGroups
from swav.data.sources.listing import BadFile
from swav.data.sources.pictures import Pictures
from swav.data.views.crops import CropGroup, Pipeline, ViewsConfig
from swav.data.views.multicrop import ByteViews, PictureBatch, make_byte_views, reduction, to_batch
from swav.data.views.pretext_tasks import Pretext

# torch waits for ever by default, also for a process that hangs
WORKER_TIMEOUT_SECONDS = 600
MOST_WORKERS = 1024

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class LoadingError(ChildProcessError):
    """Pictures no longer come from the processes that load them."""


@lru_cache(maxsize=2)
def epoch_order(num_images: int, seed: int, epoch: int) -> Int64[np.ndarray, " images"]:
    """Return the order in which an epoch visits the pictures, the same on every rank."""
    key = np.array([seed, Stream.ORDER], dtype=np.uint64)
    counter = np.array([0, 0, 0, epoch], dtype=np.uint64)
    # numpy's own Philox: one long permutation, where a generator costs nothing beside it
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.permutation(num_images)


class Steps(Dataset[Item], Generic[Item]):
    """Micro-batch number ``n`` of a run, this rank's share of it."""

    def __init__(
        self, num_images: int, *, global_batch: int, accumulate: int = 1, seed: int = 0
    ) -> None:
        num_rank_batches = accumulate * distributed.world_size()
        if global_batch % num_rank_batches:
            raise ValueError(
                f"batch size {global_batch} must be a multiple of accumulate x ranks = "
                f"{num_rank_batches}: "
                f"try {max(global_batch // num_rank_batches, 1) * num_rank_batches}"
            )
        if num_images < global_batch:
            most = max(num_images // num_rank_batches, 1) * num_rank_batches
            raise ValueError(
                f"{num_images} pictures are fewer than one batch of {global_batch}: "
                f"use --optim.batch-size {most} or less, or more pictures"
            )
        self.num_images = num_images
        self.seed = seed
        self.steps_per_epoch = num_images // global_batch
        self.accumulate = accumulate
        self._global_batch = global_batch
        self._rank = distributed.rank()
        self._rank_batch = global_batch // num_rank_batches
        self._micro_batch = global_batch // accumulate

    def positions(self, number: int) -> tuple[int, Int64[np.ndarray, " batch"]]:
        """Return the epoch of micro-batch ``number`` and its places in the epoch's order."""
        step, micro = divmod(number, self.accumulate)
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        # by place in the global batch, so that ranks and micro-batches may change and a step not
        start = step_in_epoch * self._global_batch + micro * self._micro_batch
        return epoch, start + self._rank * self._rank_batch + np.arange(self._rank_batch)

    def to_batch(self, item: Item, device: torch.device | None = None) -> AnyBatch:
        """Return what a method gets of an item of this set, on a device."""
        raise NotImplementedError


class StepViews(Steps[ByteViews | Batch]):
    """The views of micro-batch number ``n`` of a run, those of this rank."""

    def __init__(
        self,
        pictures: Pictures,
        views: ViewsConfig,
        *,
        global_batch: int,
        accumulate: int = 1,
        seed: int = 0,
        pipeline: Pipeline = "fused",
        on_bad_file: Callable[[BadFile], None] | None = None,
        pretext: Pretext | None = None,
        image_groups: ImageGroups | None = None,
    ) -> None:
        super().__init__(len(pictures), global_batch=global_batch, accumulate=accumulate, seed=seed)
        self.pictures = pictures
        self.views = views
        self.pipeline: Pipeline = pipeline
        self._on_bad_file = on_bad_file
        self.pretext = pretext
        self.image_groups = image_groups
        if pretext is not None:
            pretext.check(views)
        # what each loading process is at, in memory that they share; one more than the picture
        self._reading = np.frombuffer(mmap.mmap(-1, 8 * MOST_WORKERS), dtype=np.int64)

    def __getitem__(self, number: int) -> ByteViews | Batch:
        """Return micro-batch ``number``, counted from the start of the run, for ``to_batch``.

        A pretext task wants finished views, so it gets them here, where it has a worker.
        """
        epoch, positions = self.positions(number)
        order = epoch_order(len(self.pictures), self.seed, epoch)
        indices, pictures = self._read(order, positions)
        byte_views = make_byte_views(
            pictures,
            indices,
            self.views,
            seed=self.seed,
            epoch=epoch,
            pipeline=self.pipeline,
            partners=self._read_partners(pictures, indices, epoch=epoch),
        )
        if self.pretext is None:
            return byte_views
        return self.pretext(to_batch(byte_views, self.views), seed=self.seed, epoch=epoch)

    def to_batch(self, item: ByteViews | Batch, device: torch.device | None = None) -> Batch:
        """Return the normalised views of an item of this set, on a device."""
        return item if isinstance(item, Batch) else to_batch(item, self.views, device)

    def batch(self, number: int) -> Batch:
        """Return micro-batch ``number`` as the objective gets it."""
        return self.to_batch(self[number])

    def of_groups(self, groups: tuple[CropGroup, ...]) -> "StepViews":
        """Return the same steps with these groups of views alone; files are not noted again."""
        return StepViews(
            self.pictures,
            replace(self.views, groups=groups),
            global_batch=self._global_batch,
            accumulate=self.accumulate,
            seed=self.seed,
            pipeline=self.pipeline,
            image_groups=self.image_groups,
        )

    def _read(
        self, order: Int64[np.ndarray, " images"], positions: Int64[np.ndarray, " batch"]
    ) -> tuple[Int64[np.ndarray, " batch"], PictureBatch]:
        if self.pictures.pixels is not None:
            # rows of the one tensor: pictures in memory are not copied before they are cropped
            return order[positions], PictureBatch(self.pictures.pixels, order[positions])
        items = [
            next_readable(order, position, self._reduced, self._note)
            for position in positions.tolist()
        ]
        indices = np.array([index for index, _ in items])
        return indices, PictureBatch([picture for _, picture in items])

    def _read_partners(
        self, pictures: PictureBatch, indices: Int64[np.ndarray, " batch"], *, epoch: int
    ) -> PictureBatch | None:
        """Return of each picture another one of its group; itself where that cannot be read."""
        if self.image_groups is None:
            return None
        partners = self.image_groups.partners(indices, seed=self.seed, epoch=epoch)
        if isinstance(pictures.pictures, Tensor):
            return PictureBatch(pictures.pictures, partners)
        decoded = []
        for picture, partner in zip(pictures.pictures, partners.tolist(), strict=True):
            try:
                decoded.append(self._reduced(partner))
            except UnreadablePicture as error:
                self._note(error)
                decoded.append(picture)
        return PictureBatch(decoded)

    def _reduced(self, index: int) -> Decoded:
        # Pillow's pipeline is the reference, so it gets whole pictures by Pillow's decoder
        allowed = None if self.pipeline == "pillow" else partial(reduction, self.views)
        info = get_worker_info()
        worker = 0 if info is None else info.id
        self._reading[worker] = index + 1
        try:
            return self.pictures.reduced(index, allowed)
        finally:
            self._reading[worker] = 0

    def being_read(self) -> list[str]:
        """Return the names of the pictures that loading processes are at."""
        rows = self._reading[self._reading > 0] - 1
        return [self.pictures.names[row] for row in rows.tolist()]

    def _note(self, error: UnreadablePicture) -> None:
        if self._on_bad_file is not None:
            self._on_bad_file(BadFile(error.name, error.reason))


def next_readable(
    order: Int64[np.ndarray, " images"],
    position: int,
    read: Callable[[int], Item],
    note: Callable[[UnreadablePicture], None] = lambda _: None,
) -> tuple[int, Item]:
    """Read the picture at a position of an epoch's order, or the next one that can be read.

    Raises:
        ValueError: if there is not one.
    """
    # by position and not by chance, so that any process takes the same picture instead
    for offset in range(len(order)):
        index = int(order[(position + offset) % len(order)])
        try:
            return index, read(index)
        except UnreadablePicture as error:
            note(error)
    raise ValueError("none of the pictures can be read: see the list of bad files")


def loader(
    dataset: Steps[Any],
    *,
    start_step: int,
    total_steps: int,
    workers: int,
    device: torch.device | None = None,
) -> Iterator[AnyBatch]:
    """Yield the micro-batches from ``start_step`` (optimiser steps) on, to the end of the run."""
    numbers = range(start_step * dataset.accumulate, total_steps * dataset.accumulate)
    # only from pinned memory does a copy to the device run beside the network
    pin_memory = device is not None and device.type == "cuda"
    items = items_of(dataset, numbers, workers=workers, pin_memory=pin_memory)
    return (dataset.to_batch(item, device) for item in items)


def readable(pictures: Pictures, indices: Iterable[int]) -> tuple[list[int], list[Picture]]:
    """Return those of some positions whose pictures can be read, and the pictures."""
    kept: list[int] = []
    batch: list[Picture] = []
    for index in indices:
        try:
            batch.append(pictures[index])
        except UnreadablePicture:
            continue
        kept.append(index)
    return kept, batch


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
    if processes:
        wait([process.sentinel for process in processes], timeout=1)
    return [process for process in processes if process.exitcode]


def _fate(process: BaseProcess) -> str:
    memory = ", perhaps for want of memory" if process.exitcode == -signal.SIGKILL else ""
    return (
        f"loading process {process.pid} ended with exit code {process.exitcode} (below 0: minus "
        f"the signal that killed it){memory}"
    )


def _hung(dataset: Dataset[Item]) -> str:
    names = dataset.being_read() if isinstance(dataset, StepViews) else []
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
