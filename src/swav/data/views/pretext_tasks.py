"""Pretext tasks: ordinary views become rotated views, jigsaws or pairs of patches.

Each task takes a whole batch of views after they are made, so it does not depend on how they are
made. What it draws is a function of (seed, epoch, picture, view), as every draw is. A tile is a
view like any other, smaller: ``Batch.views`` holds the tiles of one view next to each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from swav.data import random
from swav.data.batch import Batch
from swav.data.views.crops import ViewsConfig
from swav.data.views.permutations import Permutations, permutation_set

GRID = 3
NUM_TILES = GRID * GRID
NEIGHBOURS = (0, 1, 2, 3, 5, 6, 7, 8)
"""Cells around the middle one, row by row: the answers 0 to 7 of relative position."""
SMALLEST_TILE = 4
"""Pixels of the shorter side; a smaller tile shows nothing."""
_DROP_NOISE = 0.01  # of the deviation of the colour that is kept (Doersch et al., sec. 3.1)
_FLAT = 0.02  # a tile whose deviation is below one grey level is flat: do not enlarge its noise

View = Float[Tensor, "batch channels _ _"]
Tile = Float[Tensor, "batch channels tall wide"]
Uniforms = Float64[np.ndarray, "batch draws"]


class Pretext(ABC):
    """What a pretext task makes of the views of a batch. Subclasses are final and only values."""

    @abstractmethod
    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Return the batch as the task shows it, with the answer in ``pretext``."""

    @abstractmethod
    def check(self, views: ViewsConfig) -> None:
        """Raise a ValueError for views that the task cannot be asked about."""


@final
@dataclass(frozen=True, kw_only=True)
class RotatedViews(Pretext):
    """Each view turned by 0, 90, 180 or 270 degrees (Gidaris et al., 2018).

    A view that is not square is cut to its central square, or its shape would tell the angle.
    ``pretext`` is (batch, views): how many quarter turns, against the clock.
    """

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Return the turned views."""
        turns = torch.cat(
            [
                _below(4, _draw(batch, view, 1, seed=seed, epoch=epoch))
                for view in range(len(batch.views))
            ],
            dim=1,
        )
        views = tuple(_turned(view, turns[:, number]) for number, view in enumerate(batch.views))
        return batch._replace(views=views, pretext=turns)

    def check(self, views: ViewsConfig) -> None:
        """Accept any views."""


@final
@dataclass(frozen=True, kw_only=True)
class JigsawViews(Pretext):
    """Each view cut into 3x3 tiles in a new order (Noroozi & Favaro, 2016).

    A tile is a random part of its cell, and is normalised on its own, so that neither a line that
    goes on nor the light of a cell gives the order away. Of each view come nine views, in the new
    order: place p shows cell ``permutation[p]``. ``pretext`` is (batch, views): the number of
    the permutation in the set.
    """

    num_permutations: int
    permutation_seed: int = 0
    gap: float
    tile_size: int | None = None

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Return the tiles of all views, nine by nine."""
        permutations = self._permutations()
        tiles: list[Tensor] = []
        answers: list[Tensor] = []
        for number, view in enumerate(batch.views):
            uniforms = _draw(batch, number, 1 + 2 * NUM_TILES, seed=seed, epoch=epoch)
            answer = _below(len(permutations), uniforms[:, :1])
            cells = torch.from_numpy(permutations[answer[:, 0].numpy()].astype(np.int64))
            cut = _shuffled(view, cells, uniforms[:, 1:], gap=self.gap, size=self.tile_size)
            tiles.extend(_standardised(tile) for tile in cut)
            answers.append(answer)
        return batch._replace(
            views=tuple(tiles),
            num_targets=batch.num_targets * NUM_TILES,
            pretext=torch.cat(answers, dim=1),
        )

    def check(self, views: ViewsConfig) -> None:
        """Refuse views too small for 3x3 tiles, and a set that cannot be."""
        _check_tiles(views, range(len(views.groups)), gap=self.gap)
        self._permutations()  # here, rather than once in each worker

    def _permutations(self) -> Permutations:
        return permutation_set(self.num_permutations, seed=self.permutation_seed)


@final
@dataclass(frozen=True, kw_only=True)
class PictureAndJigsawViews(Pretext):
    """The target views whole, the others as jigsaws of random order (Misra & van der Maaten, 2020).

    If all are targets, the last of them becomes the jigsaw. The jigsaws follow the whole views,
    nine tiles each; ``pretext`` is (batch, jigsaws, 9): the cell that each place shows.
    """

    gap: float
    tile_size: int | None = None

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Return the whole views, then the tiles of each jigsaw."""
        num_whole = min(batch.num_targets, len(batch.views) - 1)
        tiles: list[Tensor] = []
        orders: list[Tensor] = []
        for number in range(num_whole, len(batch.views)):
            uniforms = _draw(batch, number, 3 * NUM_TILES, seed=seed, epoch=epoch)
            # stable: equal numbers, though unlikely, have one order on every machine
            cells = torch.from_numpy(uniforms[:, :NUM_TILES].argsort(axis=1, kind="stable"))
            view, shifts = batch.views[number], uniforms[:, NUM_TILES:]
            tiles.extend(_shuffled(view, cells, shifts, gap=self.gap, size=self.tile_size))
            orders.append(cells)
        return batch._replace(
            views=(*batch.views[:num_whole], *tiles),
            num_targets=num_whole,
            pretext=torch.stack(orders, dim=1),
        )

    def check(self, views: ViewsConfig) -> None:
        """Refuse views too small for 3x3 tiles, if they are to be cut."""
        _check_tiles(views, range(1, len(views.groups)) or (0,), gap=self.gap)


@final
@dataclass(frozen=True, kw_only=True)
class PatchPairs(Pretext):
    """The middle patch of each view and one of its eight neighbours (Doersch et al., 2015).

    Patches have a gap between them and are jittered; against lenses that bend colours apart, two
    of three colours of each patch become noise (``drop``) or the axis from green to magenta is
    taken out of all (``project``). Of each view come two views; ``pretext`` is (batch, views).
    """

    gap: float
    jitter: float
    colour: Literal["drop", "project", "keep"]
    tile_size: int | None = None

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Return the pairs: middle, neighbour, middle, neighbour..."""
        patches: list[Tensor] = []
        answers: list[Tensor] = []
        around = torch.tensor(NEIGHBOURS)
        for number, view in enumerate(batch.views):
            uniforms = _draw(batch, number, 7, seed=seed, epoch=epoch)
            answer = _below(len(NEIGHBOURS), uniforms[:, :1])
            middle = torch.full_like(answer[:, 0], NUM_TILES // 2)
            for which, cells in enumerate((middle, around[answer[:, 0]])):
                shifts = uniforms[:, 1 + 2 * which : 3 + 2 * which]
                patch = _cut(view, cells, shifts, gap=self.gap, travel=self.jitter)
                patch = _resized(patch, self.tile_size)
                if self.colour == "drop":
                    kept = _below(3, uniforms[:, 5 + which : 6 + which])[:, 0]
                    noise = _noise(batch, patch, 2 * number + which, seed=seed, epoch=epoch)
                    patch = drop_colours(patch, kept, noise)
                elif self.colour == "project":
                    patch = project_colours(patch)
                patches.append(patch)
            answers.append(answer)
        return batch._replace(
            views=tuple(patches),
            num_targets=batch.num_targets * 2,
            pretext=torch.cat(answers, dim=1),
        )

    def check(self, views: ViewsConfig) -> None:
        """Refuse views too small for 3x3 patches."""
        _check_tiles(views, range(len(views.groups)), gap=self.gap)


def drop_colours(patch: Tile, kept: Int[Tensor, " batch"], noise: Tile) -> Tile:
    """Return colour patches with one channel ``kept`` and noise in the others.

    ``noise`` of deviation 1 becomes a hundredth of the deviation of the kept channel. Patches
    without three channels stay as they are.
    """
    if patch.shape[1] != 3:
        return patch
    mask = F.one_hot(kept, 3).bool()[:, :, None, None]
    deviation = (patch * mask).sum(dim=1, keepdim=True).std(dim=(2, 3), keepdim=True)
    return torch.where(mask, patch, noise * (_DROP_NOISE * deviation))


def project_colours(patch: Tile) -> Tile:
    """Return colour patches without the axis from green to magenta: ``I - a a' / (a' a)``.

    ``a`` is (-1, 2, -1), taken in normalised colours. Patches without three channels stay.
    """
    if patch.shape[1] != 3:
        return patch
    axis = torch.tensor([-1.0, 2.0, -1.0])
    projection = torch.eye(3) - axis[:, None] * axis / axis.dot(axis)
    return torch.einsum("dc,bchw->bdhw", projection, patch)


def _draw(batch: Batch, view: int, num_draws: int, *, seed: int, epoch: int) -> Uniforms:
    indices = batch.indices.numpy()
    return random.uniforms(
        seed=seed,
        epoch=epoch,
        indices=indices,
        view=random.Stream.PRETEXT_TASKS + view,
        num_draws=num_draws,
    )


def _below(limit: int, uniforms: Uniforms) -> Int[Tensor, "batch draws"]:
    """Return whole numbers from 0 to below ``limit``."""
    return torch.from_numpy((uniforms * limit).astype(np.int64))


def _noise(batch: Batch, patch: Tile, view: int, *, seed: int, epoch: int) -> Tile:
    """Return Gaussian noise of deviation 1 in the shape of ``patch``."""
    # numpy's generator, for noise is thousands of numbers a picture; its counter is still the
    # picture's
    key = np.array([seed, random.Stream.PRETEXT_TASKS], dtype=np.uint64)
    noise = np.empty(patch.shape, dtype=np.float32)
    for row, index in enumerate(batch.indices.tolist()):
        counter = np.array([0, view, index, epoch], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        noise[row] = generator.standard_normal(noise[row].shape, dtype=np.float32)
    return torch.from_numpy(noise)


def _turned(view: View, turns: Int[Tensor, " batch"]) -> Float[Tensor, "batch channels side side"]:
    side = min(view.shape[2:])
    top, left = (view.shape[2] - side) // 2, (view.shape[3] - side) // 2
    square = view[:, :, top : top + side, left : left + side]
    # four turns of many views, rather than one turn of each view
    turned = torch.empty_like(square, memory_format=torch.contiguous_format)
    for quarters in range(4):
        rows = turns == quarters
        turned[rows] = torch.rot90(square[rows], quarters, dims=(2, 3))
    return turned


def _tile_side(view_side: int, gap: float) -> int:
    """Return how much of a cell is shown; ``gap`` is the share that is not."""
    cell = view_side // GRID
    return cell - round(cell * gap)


def _cut(
    view: View, cells: Int[Tensor, " batch"], shifts: Uniforms, *, gap: float, travel: float = 1.0
) -> Tile:
    """Return of each picture the tile in its cell (0 to 8, row by row).

    ``travel`` is the share of the gap that the tile moves in, about the middle of its cell.
    """
    rows = torch.arange(len(view))
    spans = []
    for side, cell_number, shift in zip(
        view.shape[2:], (cells // GRID, cells % GRID), shifts.T, strict=True
    ):
        cell, tile = side // GRID, _tile_side(side, gap)
        reach = round((cell - tile) * travel)
        start = (side - GRID * cell) // 2 + cell_number * cell + (cell - tile - reach) // 2
        start = start + _below(reach + 1, shift[:, None])[:, 0]
        spans.append(start[:, None] + torch.arange(tile))
    down, across = spans
    tiles = view.permute(0, 2, 3, 1)[rows[:, None, None], down[:, :, None], across[:, None]]
    return tiles.permute(0, 3, 1, 2).contiguous()


def _shuffled(
    view: View, cells: Int[Tensor, "batch tiles"], shifts: Uniforms, *, gap: float, size: int | None
) -> list[Tensor]:
    """Return the tile at each place of the new order; place p shows cell ``cells[:, p]``."""
    return [
        _resized(_cut(view, cells[:, p], shifts[:, 2 * p : 2 * p + 2], gap=gap), size)
        for p in range(NUM_TILES)
    ]


def _resized(tile: Tile, size: int | None) -> View:
    if size is None or tuple(tile.shape[2:]) == (size, size):
        return tile
    # antialiased, as views are when they are resized
    return F.interpolate(tile, (size, size), mode="bilinear", antialias=True)


def _standardised(tile: Tile) -> Tile:
    """Return the tile with mean 0 and deviation 1 in each channel of each picture."""
    deviation, mean = torch.std_mean(tile, dim=(2, 3), keepdim=True, correction=0)
    return (tile - mean) / deviation.clamp(min=_FLAT)


def _check_tiles(views: ViewsConfig, groups: Sequence[int], *, gap: float) -> None:
    for number in groups:
        side = min(views.groups[number].size)
        if _tile_side(side, gap) < SMALLEST_TILE:
            enough = next(s for s in range(side, 1000) if _tile_side(s, gap) >= SMALLEST_TILE)
            raise ValueError(
                f"views {views.groups[number].description} are too small for {GRID}x{GRID} tiles "
                f"with a gap of {gap:g}: a tile would have {max(_tile_side(side, gap), 0)} "
                f"pixels, at least {SMALLEST_TILE} are needed: use --crops with sizes of "
                f"{enough} or more, or a smaller --method.gap"
            )
