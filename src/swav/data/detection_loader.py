"""Whole pictures of any size in batches, padded to the largest: what detectors learn from."""

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset

from swav.data.batch import Batch
from swav.data.loader import epoch_order, items_of
from swav.data.sources.annotated import Annotated
from swav.data.sources.decode import UnreadablePicture


@final
class PaddedPictures(Dataset[Batch]):
    """The pictures of step ``n``, in [0, 1] and padded to one size; order by (seed, epoch)."""

    def __init__(self, annotated: Annotated, *, batch_size: int, seed: int) -> None:
        self._annotated = annotated
        self._batch_size = min(batch_size, len(annotated.objects))
        self._seed = seed
        self.steps_per_epoch = len(annotated.objects) // self._batch_size

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, counted from the start of the training."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self._annotated.objects), self._seed, epoch)
        start = place * self._batch_size
        found = [self._read(order, start + row) for row in range(self._batch_size)]
        sizes = np.array([picture.shape for _, picture in found])
        padded = torch.zeros(len(found), *sizes.max(axis=0).tolist())
        for row, (_, picture) in enumerate(found):
            padded[row, :, : picture.shape[1], : picture.shape[2]] = picture.float() / 255
        return Batch((padded,), 1, torch.tensor([index for index, _ in found]))

    def _read(self, order: Int64[np.ndarray, " images"], position: int) -> tuple[int, Tensor]:
        """Read the picture at a position, or the next of the epoch that can be read."""
        for offset in range(len(order)):
            index = int(order[(position + offset) % len(order)])
            try:
                return index, self._annotated.picture(index)
            except UnreadablePicture:
                continue
        raise ValueError(f"{self._annotated.pictures.data}: none of the pictures can be read")


def read_steps(pictures: PaddedPictures, steps: range, *, workers: int) -> Iterator[Batch]:
    """Yield the batches of some steps; the bytes do not depend on the number of workers."""
    return items_of(pictures, steps, workers=workers)
