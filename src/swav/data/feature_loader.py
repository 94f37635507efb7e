"""From features of a frozen network to batches of them: no picture is read any more.

The second view of a picture is the features of another one of its group, where there are groups and
it is not alone, otherwise of one of its nearest neighbours: two pictures that the network sees
alike count as views of each other.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from swav.data.batch import FeatureBatch
from swav.data.loader import Steps, epoch_order
from swav.data.random import Stream, uniforms
from swav.data.sources.groups import ImageGroups

NUM_VIEWS = 2


@dataclass(frozen=True)
class FeatureSet:
    """Features of a set of pictures, and which of them count as views of each other."""

    values: Float[Tensor, "images features"]
    """Of every readable picture, not normalised."""
    neighbours: Int64[Tensor, "images neighbours"]
    """Rows of the pictures nearest to each."""
    image_groups: ImageGroups | None = None
    """Of the rows; None pairs each with one of its nearest."""


class StepFeatures(Steps[FeatureBatch]):
    """The features of micro-batch number ``n`` of a run, those of this rank."""

    def __init__(
        self, features: FeatureSet, *, global_batch: int, accumulate: int = 1, seed: int = 0
    ) -> None:
        super().__init__(
            len(features.values), global_batch=global_batch, accumulate=accumulate, seed=seed
        )
        self._features = features

    def __getitem__(self, number: int) -> FeatureBatch:
        """Return micro-batch ``number``, counted from the start of the run."""
        epoch, positions = self.positions(number)
        rows = epoch_order(self.num_images, self.seed, epoch)[positions]
        values = self._features.values
        views = values[torch.from_numpy(rows)], values[self._partners(rows, epoch=epoch)]
        return FeatureBatch(views, NUM_VIEWS, torch.from_numpy(rows))

    def to_batch(self, item: FeatureBatch, device: torch.device | None = None) -> FeatureBatch:
        """Return the features of an item of this set, on a device."""
        views = tuple(view.to(device) for view in item.views)
        return item._replace(views=views, indices=item.indices.to(device))

    def _partners(
        self, rows: Int64[np.ndarray, " batch"], *, epoch: int
    ) -> Int64[Tensor, " batch"]:
        """Return a mate of each picture; the draw depends on (seed, epoch, picture) only."""
        near = self._features.neighbours[torch.from_numpy(rows)]
        drawn = uniforms(seed=self.seed, epoch=epoch, indices=rows, view=Stream.GROUPS, num_draws=1)
        choice = torch.from_numpy((drawn[:, 0] * near.shape[1]).astype(np.int64))
        nearest = near[torch.arange(len(near)), choice]
        if self._features.image_groups is None:
            return nearest
        mates = self._features.image_groups.partners(rows, seed=self.seed, epoch=epoch)
        return torch.where(torch.from_numpy(mates != rows), torch.from_numpy(mates), nearest)
