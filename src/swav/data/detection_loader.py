"""Whole pictures of any size in batches, padded to the largest: what detectors learn from."""

from typing import final

import numpy as np
import torch
from torch.utils.data import Dataset

from swav.data.batch import Batch
from swav.data.loader import epoch_order, next_readable
from swav.data.sources.annotated import Annotated


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
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self._annotated.objects), self._seed, epoch)
        start = step_in_epoch * self._batch_size
        items = [
            next_readable(order, position, self._annotated.picture)
            for position in range(start, start + self._batch_size)
        ]
        sizes = np.array([picture.shape for _, picture in items])
        padded = torch.zeros(len(items), *sizes.max(axis=0).tolist())
        for row, (_, picture) in enumerate(items):
            padded[row, :, : picture.shape[1], : picture.shape[2]] = picture.float() / 255
        return Batch((padded,), 1, torch.tensor([index for index, _ in items]))
