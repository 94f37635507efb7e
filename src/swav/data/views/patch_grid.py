"""Views cut into a grid of patches that overlap, for contrastive predictive coding."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from swav.data.batch import Batch
from swav.data.views.crops import ViewsConfig
from swav.data.views.pretext_tasks import SMALLEST_TILE, Pretext


@final
@dataclass(frozen=True, kw_only=True)
class PatchGrid(Pretext):
    """Each view as a square grid of patches, row by row (Hénaff et al., 2019).

    Of each view come ``grid * grid`` views. Patches are augmented with their view, not each alone.
    Nothing is drawn, and there is no answer.
    """

    grid: int
    overlap: float
    """Share of each side of a patch that the next one shows too."""
    tile_size: int | None = None

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:  # noqa: ARG002
        """Return the patches of all views, grid by grid."""
        patches = [patch for view in batch.views for patch in self._cut(view)]
        return batch._replace(
            views=tuple(patches), num_targets=batch.num_targets * self.grid * self.grid
        )

    def check(self, views: ViewsConfig) -> None:
        """Refuse views too small for the grid."""
        for group in views.groups:
            side = min(group.size)
            if self.patch_side(side) < SMALLEST_TILE:
                enough = next(s for s in range(side, 10_000) if self.patch_side(s) >= SMALLEST_TILE)
                raise ValueError(
                    f"views {group.description} are too small for {self.grid}x{self.grid} patches "
                    f"that overlap by {self.overlap:g}: a patch would have {self.patch_side(side)} "
                    f"pixels, at least {SMALLEST_TILE} are needed: use --crops with sizes of "
                    f"{enough} or more, or a smaller --method.grid"
                )

    def patch_side(self, view_side: int) -> int:
        """Return how much of a side of a view a patch shows."""
        return int(view_side / (1 + (self.grid - 1) * (1 - self.overlap)))

    def _cut(self, view: Float[Tensor, "batch channels _ _"]) -> list[Tensor]:
        tall, wide = (self.patch_side(side) for side in view.shape[2:])
        tops, lefts = (self._starts(side) for side in view.shape[2:])
        patches = [
            view[:, :, top : top + tall, left : left + wide] for top in tops for left in lefts
        ]
        if self.tile_size is None:
            return [patch.contiguous() for patch in patches]
        size = (self.tile_size, self.tile_size)
        return list(
            F.interpolate(torch.cat(patches), size, mode="bilinear", antialias=True).chunk(
                len(patches)
            )
        )

    def _starts(self, side: int) -> list[int]:
        """Return the first pixel of each patch along a side, evenly from one end to the other."""
        last = side - self.patch_side(side)
        return [round(number * last / (self.grid - 1)) for number in range(self.grid)]
