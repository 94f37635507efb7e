"""From a set of pictures to batches of views: which pictures a step sees, and their views.

The unit of loading is a whole micro-batch. Its number fixes epoch, pictures and every random
draw, so any number of workers makes the same bytes, any number of ranks the same views (the last
bit of a sum may differ), and resuming needs no replay.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swav import distributed
from swav.data import augment, crops, philox
from swav.data.batch import Batch
from swav.data.crops import CropGroup, ViewsConfig
from swav.data.positives import Positives
from swav.data.sources import BadFile, Pictures, UnreadablePicture
from swav.data.tiles import Pretext

WORKER_TIMEOUT_SECONDS = 600
_ORDER_STREAM = 0x6F72646572  # keeps the order of the images apart from other uses of the seed


@lru_cache(maxsize=2)
def epoch_order(num_images: int, seed: int, epoch: int) -> Int64[np.ndarray, " images"]:
    """Return the order in which an epoch visits the pictures, the same on every rank."""
    key = np.array([seed, _ORDER_STREAM], dtype=np.uint64)
    counter = np.array([0, 0, 0, epoch], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.permutation(num_images)


class StepViews(Dataset[Batch]):
    """Micro-batch number ``n`` of a run, this rank's share of it."""

    def __init__(
        self,
        pictures: Pictures,
        views: ViewsConfig,
        *,
        global_batch: int,
        accumulate: int = 1,
        seed: int = 0,
        bad_files: Path | None = None,
        pretext: Pretext | None = None,
        positives: Positives | None = None,
    ) -> None:
        shares = accumulate * distributed.world_size()
        if global_batch % shares:
            raise ValueError(
                f"batch size {global_batch} must be a multiple of accumulate x ranks = {shares}: "
                f"try {max(global_batch // shares, 1) * shares}"
            )
        if len(pictures) < global_batch:
            raise ValueError(
                f"{len(pictures)} pictures are fewer than one batch of {global_batch}: "
                f"use --optim.batch-size {max(len(pictures) // shares * shares, shares)} or less, "
                "or more pictures"
            )
        self.pictures = pictures
        self.views = views
        self.seed = seed
        self.bad_files = bad_files
        self.pretext = pretext
        self.positives = positives
        if pretext is not None:
            pretext.check(views)
        self.steps_per_epoch = len(pictures) // global_batch
        self.accumulate = accumulate
        self._global_batch = global_batch
        self._rank = distributed.rank()
        self._share = global_batch // shares
        self._micro_batch = global_batch // accumulate

    def positions(self, number: int) -> tuple[int, Int64[np.ndarray, " batch"]]:
        """Return the epoch of micro-batch ``number`` and its places in the epoch's order."""
        step, micro = divmod(number, self.accumulate)
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self._global_batch + micro * self._micro_batch
        return epoch, start + self._rank * self._share + np.arange(self._share)

    def __getitem__(self, number: int) -> Batch:
        """Return micro-batch ``number``, counted from the start of the run."""
        epoch, positions = self.positions(number)
        order = epoch_order(len(self.pictures), self.seed, epoch)
        with _one_thread():
            indices, pictures = self._read(order, positions)
            others = self._read_others(indices, pictures, epoch=epoch)
            views = make_views(
                pictures, indices, self.views, seed=self.seed, epoch=epoch, others=others
            )
            batch = Batch(views, self.views.num_targets, torch.from_numpy(indices))
            if self.pretext is None:
                return batch
            return self.pretext(batch, seed=self.seed, epoch=epoch)

    def _read_others(
        self,
        indices: Int64[np.ndarray, " batch"],
        pictures: Tensor | Sequence[Tensor],
        *,
        epoch: int,
    ) -> Tensor | Sequence[Tensor] | None:
        """Return of each picture another one of its group; itself where that cannot be read."""
        if self.positives is None:
            return None
        partners = self.positives.partners(indices, seed=self.seed, epoch=epoch)
        if self.pictures.pixels is not None:
            return self.pictures.pixels[torch.from_numpy(partners)]
        found = []
        for row, partner in enumerate(partners.tolist()):
            try:
                found.append(self.pictures[partner])
            except UnreadablePicture as error:
                self._note(BadFile(error.name, error.reason))
                found.append(pictures[row])
        return found

    def _read(
        self,
        order: Int64[np.ndarray, " images"],
        positions: Int64[np.ndarray, " batch"],
    ) -> tuple[Int64[np.ndarray, " batch"], Tensor | Sequence[Tensor]]:
        if self.pictures.pixels is not None:
            indices = order[positions]
            return indices, self.pictures.pixels[torch.from_numpy(indices)]
        found = [self._read_one(order, int(position)) for position in positions]
        return np.array([index for index, _ in found]), [picture for _, picture in found]

    def _read_one(self, order: Int64[np.ndarray, " images"], position: int) -> tuple[int, Tensor]:
        """Read the picture at ``position``, or the next of the same epoch that can be read."""
        for offset in range(len(order)):
            index = int(order[(position + offset) % len(order)])
            try:
                return index, self.pictures[index]
            except UnreadablePicture as error:
                self._note(BadFile(error.name, error.reason))
        raise ValueError("none of the pictures can be read: see bad_files.txt for the reasons")

    def _note(self, bad: BadFile) -> None:
        if self.bad_files is not None:
            line = f"{bad.name!r}\t{bad.reason}\n".encode(errors="backslashreplace")
            descriptor = os.open(self.bad_files, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(descriptor, line)  # one write: lines of several workers never mix
            os.close(descriptor)


def make_views(
    pictures: Tensor | Sequence[Tensor],
    indices: Int64[np.ndarray, " batch"],
    views: ViewsConfig,
    *,
    seed: int,
    epoch: int,
    others: Tensor | Sequence[Tensor] | None = None,
) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
    """Return all views of ``pictures``; ``indices`` name them to the random draws.

    With ``others``, every second view (the second target, every second small one) is taken of
    those instead, row by row.
    """
    shown = [
        (each, np.array([picture.shape[1:] for picture in each], dtype=np.int64))
        for each in (pictures, pictures if others is None else others)
    ]
    mean, std = torch.tensor(views.mean), torch.tensor(views.std)
    made: list[Tensor] = []
    for group in views.groups:
        for _ in range(group.count):
            draws = philox.uniforms(
                seed=seed,
                epoch=epoch,
                indices=indices,
                view=len(made),
                num_draws=crops.NUM_DRAWS + augment.NUM_DRAWS,
            )
            view = _make_view(*shown[len(made) % 2], group, draws)
            made.append((view - mean[:, None, None]).div_(std[:, None, None]))
    return tuple(made)


def _make_view(
    pictures: Tensor | Sequence[Tensor],
    sizes: Int64[np.ndarray, "batch 2"],
    group: CropGroup,
    draws: Float[np.ndarray, "batch draws"],
) -> Float[Tensor, "batch channels height width"]:
    boxes, flips = crops.draw_boxes(group, sizes, draws[:, : crops.NUM_DRAWS])
    photometry = augment.draw_photometry(group.augment, draws[:, crops.NUM_DRAWS :])
    return augment.augment(crops.crop_and_resize(pictures, boxes, flips, group.size), photometry)


def loader(
    dataset: StepViews,
    *,
    start_step: int,
    total_steps: int,
    workers: int,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the micro-batches from ``start_step`` (optimiser steps) to the end of the run."""
    numbers = range(start_step * dataset.accumulate, total_steps * dataset.accumulate)
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            timeout=WORKER_TIMEOUT_SECONDS if workers else 0,
            pin_memory=pin_memory,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_ignore_signals if workers else None,
        )
    )


def _ignore_signals(worker: int) -> None:
    """Leave stopping to the parent, which still needs batches until it has saved."""
    del worker
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Make sums independent of the process that computes them: a worker has one thread too."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
