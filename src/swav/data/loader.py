"""From a set of pictures to batches of views: which pictures a step sees, and their views.

The unit of loading is a whole micro-batch. Its number fixes epoch, pictures and every random
draw, so any number of workers makes the same bytes, any number of ranks the same views (the last
bit of a sum may differ), and resuming needs no replay.
"""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from swav import distributed
from swav.data.batch import AnyBatch, Batch
from swav.data.eval_transform import Picture
from swav.data.processes import items_of
from swav.data.random import Stream
from swav.data.sources.decode import Decoded, UnreadablePicture
from swav.data.sources.groups import ImageGroups
from swav.data.sources.listing import BadFile
from swav.data.sources.pictures import Pictures
from swav.data.views.crops import CropGroup, Pipeline, ViewsConfig
from swav.data.views.multicrop import ByteViews, PictureBatch, make_byte_views, reduction, to_batch
from swav.data.views.pretext_tasks import Pretext

MOST_WORKERS = 1024

Item = TypeVar("Item")


@lru_cache(maxsize=2)
def epoch_order(num_images: int, seed: int, epoch: int) -> Int64[np.ndarray, " images"]:
    """Return the order in which an epoch visits the pictures, the same on every rank."""
    key = np.array([seed, Stream.ORDER], dtype=np.uint64)
    counter = np.array([0, 0, 0, epoch], dtype=np.uint64)
    # numpy's own Philox: one long permutation, where a generator costs nothing beside it
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.permutation(num_images)


class Steps(Dataset[Item], ABC, Generic[Item]):
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

    @abstractmethod
    def to_batch(self, item: Item, device: torch.device | None = None) -> AnyBatch:
        """Return what a method gets of an item of this set, on a device."""


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
