"""Pretext views: every pixel where the answer says it is, the same for any workers and ranks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swav.data.batch import Batch
from swav.data.loader import StepViews, loader
from swav.data.sources.open import from_arrays
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.permutations import permutation_set
from swav.data.views.pretext_tasks import (
    NEIGHBOURS,
    JigsawViews,
    PatchPairs,
    PictureAndJigsawViews,
    Pretext,
    RotatedViews,
    drop_colours,
    project_colours,
)

BATCH = 12
SIDE = 30  # cells of 10
JIGSAW = JigsawViews(num_permutations=20, gap=0.3)
PAIR = PictureAndJigsawViews(gap=0.3)
PATCHES = PatchPairs(gap=0.4, jitter=1.0, colour="keep")
EVERY: dict[str, Pretext] = {
    "rotation": RotatedViews(),
    "jigsaw": JIGSAW,
    "picture and jigsaw": PAIR,
    "relative": PATCHES,
    "relative, colours dropped": replace(PATCHES, colour="drop"),
}
every_task = pytest.mark.parametrize("task", EVERY.values(), ids=EVERY.keys())


def numbered(num_views: int = 2, side: int = SIDE, wide: int | None = None) -> Batch:
    """Return views whose every pixel is a number of its own: view, picture, row, column."""
    wide = side if wide is None else wide
    values = torch.arange(num_views * BATCH * 3 * side * wide, dtype=torch.float64)
    values = values.view(num_views, BATCH, 3, side, wide).float()
    return Batch(tuple(values), 1, torch.arange(BATCH) * 7)


def where(view: Tensor, tile: Tensor, picture: int) -> tuple[int, int]:
    """Return top and left of a tile in a numbered view, after checking that it lies there."""
    start = float(view[picture, 0, 0, 0])
    top, left = divmod(int(float(tile[picture, 0, 0, 0]) - start), view.shape[3])
    tall, wide = tile.shape[2:]
    assert torch.equal(tile[picture], view[picture, :, top : top + tall, left : left + wide])
    return top, left


def made(task: Pretext, batch: Batch, *, seed: int = 0, epoch: int = 0) -> Batch:
    return task(batch, seed=seed, epoch=epoch)


def same(one: Batch, other: Batch) -> bool:
    assert one.num_targets == other.num_targets
    return torch.equal(one.answers, other.answers) and all(
        torch.equal(*views) for views in zip(one.views, other.views, strict=True)
    )


@pytest.mark.parametrize(("side", "wide"), [(8, 8), (8, 12), (13, 8)])
def test_rotation_turns_by_the_angle_it_names(side: int, wide: int) -> None:
    batch = numbered(3, side, wide)
    turned = made(RotatedViews(), batch)
    assert turned.answers.shape == (BATCH, 3)
    assert set(turned.answers.unique().tolist()) == {0, 1, 2, 3}
    top, left = (side - 8) // 2, (wide - 8) // 2
    for place, view in enumerate(batch.views):
        for picture in range(BATCH):
            square = view[picture, :, top : top + 8, left : left + 8].numpy()
            expected = np.rot90(square, int(turned.answers[picture, place]), axes=(1, 2))
            assert np.array_equal(turned.views[place][picture].numpy(), expected)


def test_a_jigsaw_shows_at_each_place_a_part_of_the_cell_of_its_permutation() -> None:
    batch = numbered()
    raw = PictureAndJigsawViews(gap=0.3)(batch, seed=0, epoch=0)  # tiles as they are cut
    assert raw.num_targets == 1
    assert torch.equal(raw.views[0], batch.views[0])
    assert raw.answers.shape == (BATCH, 1, 9)
    shifts = set()
    for picture in range(BATCH):
        order = raw.answers[picture, 0].tolist()
        assert sorted(order) == list(range(9))
        for place, cell in enumerate(order):
            tile = raw.views[1 + place]
            assert tile.shape == (BATCH, 3, 7, 7)
            top, left = where(batch.views[1], tile, picture)
            assert (top // 10, left // 10) == divmod(cell, 3)
            shifts |= {top % 10, left % 10}
    assert shifts == {0, 1, 2, 3}  # the whole gap is used, and no tile crosses its cell
    assert len({tuple(order) for order in raw.answers[:, 0].tolist()}) > 1


def test_jigsaw_names_a_permutation_of_the_set_and_normalises_each_tile() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.arange(9.0).view(3, 3).repeat_interleave(10, 0).repeat_interleave(10, 1)
    texture = torch.rand(2, BATCH, 3, SIDE, SIDE, generator=generator)
    batch = Batch(tuple(texture + 5 * cells), 1, torch.arange(BATCH))
    jigsaw = made(JIGSAW, batch)
    assert (len(jigsaw.views), jigsaw.num_targets, jigsaw.answers.shape) == (18, 9, (BATCH, 2))
    known = permutation_set(20)
    for place, tile in enumerate(jigsaw.views):
        torch.testing.assert_close(tile.mean(dim=(2, 3)), torch.zeros(BATCH, 3), atol=1e-4, rtol=0)
        deviation = tile.std(dim=(2, 3), correction=0)
        torch.testing.assert_close(deviation, torch.ones(BATCH, 3), atol=1e-3, rtol=0)
        view = batch.views[place // 9]
        for picture in range(3):
            cell = int(known[jigsaw.answers[picture, place // 9], place % 9])
            down, across = divmod(cell, 3)
            inside = view[picture, 0, 10 * down : 10 * down + 10, 10 * across : 10 * across + 10]
            windows = inside.unfold(0, 7, 1).unfold(1, 7, 1).reshape(-1, 49)
            likeness = torch.corrcoef(torch.cat([tile[picture, 0].reshape(1, 49), windows]))[0, 1:]
            assert likeness.max() > 0.999  # one of the 16 places in that cell


def test_a_flat_tile_stays_flat() -> None:
    flat = Batch((torch.full((BATCH, 3, SIDE, SIDE), 0.7),), 1, torch.arange(BATCH))
    assert all((tile.abs() < 1e-3).all() for tile in made(JIGSAW, flat).views)


@pytest.mark.parametrize(("num_targets", "num_views", "whole"), [(2, 2, 1), (2, 4, 2), (1, 3, 1)])
def test_the_views_beside_the_targets_become_jigsaws(
    num_targets: int, num_views: int, whole: int
) -> None:
    batch = numbered(num_views)._replace(num_targets=num_targets)
    pair = made(PAIR, batch)
    assert pair.num_targets == whole
    assert len(pair.views) == whole + 9 * (num_views - whole)


@pytest.mark.parametrize(("jitter", "starts"), [(1.0, {0, 1, 2, 3, 4}), (0.5, {1, 2, 3}), (0, {2})])
def test_relative_shows_the_middle_and_the_neighbour_it_names(
    jitter: float, starts: set[int]
) -> None:
    batch = numbered()
    pairs = made(replace(PATCHES, jitter=jitter), batch)
    assert (len(pairs.views), pairs.num_targets, pairs.answers.shape) == (4, 2, (BATCH, 2))
    assert set(pairs.answers.unique().tolist()) <= set(range(8))
    assert len(pairs.answers.unique()) > 4
    found = set()
    for place, view in enumerate(batch.views):
        for picture in range(BATCH):
            for number, cell in ((0, 4), (1, NEIGHBOURS[pairs.answers[picture, place]])):
                top, left = where(view, pairs.views[2 * place + number], picture)
                assert (top // 10, left // 10) == divmod(cell, 3)
                found |= {top % 10, left % 10}
    assert found == starts


def test_dropped_colours_are_noise_and_one_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    patch = torch.randn(3, 3, 40, 40, generator=generator)
    noise = torch.randn(3, 3, 40, 40, generator=generator)
    dropped = drop_colours(patch, torch.tensor([0, 2, 1]), noise)
    for row, kept in enumerate([0, 2, 1]):
        for channel in range(3):
            if channel == kept:
                assert torch.equal(dropped[row, channel], patch[row, channel])
            else:
                ratio = dropped[row, channel].std() / patch[row, kept].std()
                assert ratio == pytest.approx(0.01, rel=0.1)
    pairs = made(replace(PATCHES, colour="drop"), numbered())
    flat = torch.stack([view.std(dim=(2, 3)) for view in pairs.views])
    assert ((flat > 1).sum(dim=2) == 1).all()  # of the numbered pixels one colour is left
    assert len((flat > 1).float().argmax(dim=2).unique()) == 3


def test_projection_takes_the_green_magenta_axis_out_and_nothing_else() -> None:
    patch = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    projected = project_colours(patch)
    axis = torch.tensor([-1.0, 2.0, -1.0])
    along = torch.einsum("c,bchw->bhw", axis, projected)
    torch.testing.assert_close(along, torch.zeros(2, 5, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(project_colours(projected), projected)
    taken = patch - projected
    torch.testing.assert_close(taken[:, 0], taken[:, 2])
    torch.testing.assert_close(taken[:, 1], -2 * taken[:, 0])


@pytest.mark.parametrize("colour", ["drop", "project"])
def test_colours_mean_nothing_without_three_channels(colour: Any) -> None:
    views = tuple(view[:, :1] for view in numbered().views)
    batch = numbered()._replace(views=views)
    assert same(made(replace(PATCHES, colour=colour), batch), made(PATCHES, batch))


@every_task
def test_draws_belong_to_seed_epoch_picture_and_view(task: Pretext) -> None:
    batch = numbered()
    whole = made(task, batch)
    assert same(made(task, batch), whole)
    assert not torch.equal(made(task, batch, seed=1).answers, whole.answers)
    assert not torch.equal(made(task, batch, epoch=1).answers, whole.answers)
    assert whole.answers.shape[1] == 1 or not torch.equal(whole.answers[:, 0], whole.answers[:, 1])
    rows = torch.tensor([5, 2, 9])
    part = batch._replace(views=tuple(v[rows] for v in batch.views), indices=batch.indices[rows])
    expected = whole._replace(
        views=tuple(view[rows] for view in whole.views), pretext=whole.answers[rows]
    )
    assert same(made(task, part), expected)


VIEWS = ViewsConfig(
    groups=(
        CropGroup(count=2, size=(20, 20), scale=(0.3, 1.0)),
        CropGroup(count=1, size=(18, 20), scale=(0.1, 0.4)),
    )
)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@every_task
def test_the_loader_makes_the_same_with_any_workers(task: Pretext) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 20, 3), dtype=np.uint8)
    pictures = from_arrays(pixels)

    def batches(workers: int) -> list[Batch]:
        views = StepViews(pictures, VIEWS, global_batch=8, seed=0, pretext=task)
        return list(loader(views, start_step=1, total_steps=4, workers=workers))

    alone = batches(0)
    for one, other in zip(alone, batches(1), strict=True):
        assert same(one, other)
    plain = StepViews(pictures, VIEWS, global_batch=8, seed=0).batch(1)
    assert torch.equal(plain.indices, alone[0].indices)
    assert same(made(task, plain), alone[0])


@pytest.mark.parametrize("task", [JIGSAW, replace(PATCHES, gap=0.25), PAIR])
@pytest.mark.parametrize("size", [(9, 30), (2, 2)])
def test_views_too_small_for_tiles_are_refused(task: Any, size: tuple[int, int]) -> None:
    small = CropGroup(count=2, size=size, scale=(0.1, 0.4))
    pictures = from_arrays(np.zeros((8, 16, 16, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"too small for 3x3 tiles.* use --crops with sizes of 1"):
        StepViews(pictures, ViewsConfig(groups=(small,)), global_batch=8, pretext=task)


def test_the_smallest_view_that_the_error_names_is_large_enough() -> None:
    group = CropGroup(count=2, size=(9, 9), scale=(0.1, 0.4))
    with pytest.raises(ValueError, match="of 18 or more"):
        JIGSAW.check(ViewsConfig(groups=(group,)))
    enough = ViewsConfig(groups=(replace(group, size=(18, 18)),))
    JIGSAW.check(enough)
    assert made(JIGSAW, numbered(2, 18)).views[0].shape == (BATCH, 3, 4, 4)


def test_only_what_is_cut_has_to_be_large() -> None:
    large = CropGroup(count=1, size=(30, 30), scale=(0.1, 0.4))
    PAIR.check(ViewsConfig(groups=(replace(large, size=(6, 6)), large)))


def test_tiles_can_be_enlarged() -> None:
    for task in (JIGSAW, PATCHES, PAIR):
        tiles = made(replace(task, tile_size=12), numbered())
        assert tiles.views[-1].shape == (BATCH, 3, 12, 12)


def test_a_batch_without_answers_says_how_to_make_them() -> None:
    with pytest.raises(ValueError, match=r"pretext=config\.pretext"):
        _ = numbered().answers
