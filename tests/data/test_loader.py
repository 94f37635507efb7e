"""The loader: the same bytes for any workers, ranks and resumption; bad pictures replaced."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from swav import distributed
from swav.data.batch import Batch
from swav.data.loader import StepViews, epoch_order, loader
from swav.data.sources.open import SourceConfig, from_arrays, open_source
from swav.data.sources.pictures import Pictures
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.run_folder.bad_files import append_bad_file

VIEWS = ViewsConfig(
    groups=(
        CropGroup(count=2, size=(12, 12), scale=(0.3, 1.0)),
        CropGroup(count=1, size=(6, 8), scale=(0.1, 0.4)),
    )
)
NUM_IMAGES = 26


def pixels(num: int = NUM_IMAGES) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 16, 20, 3), dtype=np.uint8)


def in_memory() -> Pictures:
    return from_arrays(pixels())


def written(folder: Path, *, damaged: tuple[int, ...] = ()) -> Pictures:
    """Return pictures that are read from files when asked for, some of which cannot be."""
    for index, values in enumerate(pixels()):
        path = folder / f"{index:02}.png"
        Image.fromarray(values).save(path)
        if index in damaged:
            path.write_bytes(path.read_bytes()[:80])
    return open_source(SourceConfig(data=str(folder), max_bad_fraction=0.9))


def batches(pictures: Pictures, *, workers: int = 0, start: int = 0, steps: int = 6, **options):
    dataset = StepViews(pictures, VIEWS, **{"global_batch": 8, **options})
    return list(loader(dataset, start_step=start, total_steps=steps, workers=workers))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one.indices, other.indices)
        and all(torch.equal(*views) for views in zip(one.views, other.views, strict=True))
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("from_files", [True, False])
def test_any_number_of_workers_makes_the_same_bytes(tmp_path, workers, from_files):
    pictures = written(tmp_path) if from_files else in_memory()
    alone = batches(pictures)
    assert len(alone) == 6  # two epochs of three
    assert same(batches(pictures, workers=workers), alone)


def test_threads_do_not_matter():
    alone = batches(in_memory())
    torch.set_num_threads(2)
    assert same(batches(in_memory()), alone)
    assert torch.get_num_threads() == 2


def test_resuming_needs_no_replay():
    assert same(batches(in_memory(), start=4), batches(in_memory())[4:])


def test_seed_and_epoch_change_order_and_views():
    first = batches(in_memory())
    other = batches(in_memory(), seed=1)
    assert not torch.equal(first[0].indices, other[0].indices)
    assert not torch.equal(first[0].indices, first[3].indices)
    by_index = [
        {
            int(index): view
            for batch in epoch
            for index, view in zip(batch.indices, batch.views[0], strict=True)
        }
        for epoch in (first[:3], first[3:])
    ]
    for index in by_index[0].keys() & by_index[1].keys():
        assert not torch.equal(by_index[0][index], by_index[1][index])


def test_an_epoch_visits_each_picture_once_at_most():
    whole = batches(in_memory(), global_batch=13, steps=4)
    for epoch in (whole[:2], whole[2:]):
        assert sorted(torch.cat([batch.indices for batch in epoch]).tolist()) == list(range(26))
    for epoch in (batches(in_memory())[:3], batches(in_memory())[3:]):
        visited = torch.cat([batch.indices for batch in epoch]).tolist()
        assert len(set(visited)) == len(visited) == 24


def test_the_order_of_an_epoch_is_a_permutation_of_its_own():
    orders = [epoch_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(100))
    assert len({order.tobytes() for order in orders}) == 6


def on_rank(monkeypatch, rank: int, world: int, pictures: Pictures, **options) -> list[Batch]:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    return batches(pictures, **options)


@pytest.mark.parametrize("from_files", [True, False])
@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (4, 1), (2, 2)])
def test_ranks_and_micro_batches_see_the_same_global_batches(
    monkeypatch, tmp_path, from_files, world, accumulate
):
    pictures = written(tmp_path, damaged=(3, 4)) if from_files else in_memory()
    whole = batches(pictures)
    ranks = [
        on_rank(monkeypatch, rank, world, pictures, accumulate=accumulate) for rank in range(world)
    ]
    for step, expected in enumerate(whole):
        parts = [
            ranks[rank][step * accumulate + micro]
            for micro in range(accumulate)
            for rank in range(world)
        ]
        assert torch.equal(torch.cat([part.indices for part in parts]), expected.indices)
        for view, views in enumerate(expected.views):
            found = torch.cat([part.views[view] for part in parts])
            torch.testing.assert_close(found, views, rtol=0, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_replaced_by_the_next(tmp_path, workers):
    (tmp_path / "set").mkdir()
    damaged = (5, 6, 17)
    pictures = written(tmp_path / "set", damaged=damaged)
    found = batches(pictures, workers=workers, on_bad_file=partial(append_bad_file, tmp_path))
    for epoch in range(2):
        order = epoch_order(NUM_IMAGES, 0, epoch).tolist()
        expected = []
        for position in range(24):
            while order[position % NUM_IMAGES] in damaged:
                position += 1
            expected.append(order[position % NUM_IMAGES])
        indices = torch.cat([batch.indices for batch in found[3 * epoch : 3 * epoch + 3]])
        assert indices.tolist() == expected
    lines = (tmp_path / "bad_files.txt").read_text().splitlines()
    assert {line.split("\t")[0] for line in lines} == {repr(f"{index:02}.png") for index in damaged}
    assert all(line.split("\t")[1] for line in lines)


def test_a_replacement_gets_the_views_of_its_own_index(tmp_path):
    found = batches(written(tmp_path, damaged=(5, 6, 17)))
    whole = {}
    for step, batch in enumerate(found[:3]):
        for row, index in enumerate(batch.indices.tolist()):
            if index in whole:
                first_step, first_row = whole[index]
                for view in range(3):
                    first = found[first_step].views[view][first_row]
                    assert torch.equal(batch.views[view][row], first)
            whole[index] = (step, row)
    assert len(whole) < 24


def test_nothing_readable_is_an_error(tmp_path):
    pictures = written(tmp_path, damaged=tuple(range(NUM_IMAGES)))
    with pytest.raises(ValueError, match=r"could not be read|cannot be read|none of the pictures"):
        batches(pictures)


def test_a_batch_knows_its_targets():
    (first, *_) = batches(in_memory())
    assert first.num_targets == 2
    assert first.indices.dtype == torch.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_batch": 9, "accumulate": 2}, r"9 must be a multiple of .* = 2: try 8"),
        ({"global_batch": 1, "accumulate": 2}, r"1 must be a multiple of .* = 2: try 2"),
        ({"global_batch": 32}, r"26 pictures are fewer than one batch of 32: .*batch-size 26 or"),
        ({"global_batch": 32, "accumulate": 4}, "batch-size 24 or less"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StepViews(in_memory(), VIEWS, **options)
