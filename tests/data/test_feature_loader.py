"""Batches of features: what a step sees depends on seed, epoch and picture alone."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from swav import distributed
from swav.data.batch import FeatureBatch
from swav.data.feature_loader import FeatureSet, StepFeatures
from swav.data.loader import epoch_order, loader
from swav.training.frozen_features import NEIGHBOURS, PICTURES_PER_NEIGHBOUR, feature_set

NUM_IMAGES, NUM_NEIGHBOURS, GLOBAL_BATCH, EPOCH = 60, 3, 8, 7
"""An epoch has seven steps, and leaves four pictures out."""


def features(number: int = NUM_IMAGES) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(number, 5)).astype(np.float32))


def numbered() -> FeatureSet:
    """Return features that tell their rows; the neighbours of each picture are those after it."""
    rows = torch.arange(NUM_IMAGES)
    after = (rows[:, None] + 1 + torch.arange(NUM_NEIGHBOURS)) % NUM_IMAGES
    return FeatureSet(rows[:, None].float(), after)


def batches(*, start: int = 0, steps: int = 2 * EPOCH, **options: int) -> list[FeatureBatch]:
    dataset = StepFeatures(numbered(), **{"global_batch": GLOBAL_BATCH, **options})
    found = list(loader(dataset, start_step=start, total_steps=steps, workers=0))
    assert all(isinstance(batch, FeatureBatch) for batch in found)
    return found


def rows_of(found: list[FeatureBatch]) -> torch.Tensor:
    """Return pictures and the partners that they got, (pictures, 2)."""
    return torch.cat([torch.cat(batch.views, dim=1).long() for batch in found])


def test_an_epoch_shows_every_picture_once_beside_one_of_its_neighbours() -> None:
    found = batches(steps=EPOCH)
    shown = rows_of(found)
    assert torch.equal(torch.cat([batch.indices for batch in found]), shown[:, 0])
    order = epoch_order(NUM_IMAGES, 0, 0)
    assert torch.equal(shown[:, 0], torch.from_numpy(order[: EPOCH * GLOBAL_BATCH]))
    steps_after = (shown[:, 1] - shown[:, 0]) % NUM_IMAGES
    assert set(steps_after.tolist()) == {1, 2, 3}
    assert all(batch.num_targets == len(batch.views) == 2 for batch in found)


def test_going_on_at_a_step_needs_no_replay() -> None:
    whole = rows_of(batches())
    for start in (1, EPOCH, EPOCH + 2):
        assert torch.equal(rows_of(batches(start=start)), whole[start * GLOBAL_BATCH :])


def test_ranks_and_micro_batches_share_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows_of(batches())
    assert torch.equal(rows_of(batches(accumulate=2)), whole)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(rows_of(batches(accumulate=2)).view(-1, 2, 2))
    assert torch.equal(torch.cat(shares, dim=1).view(-1, 2), whole)


def test_a_draw_depends_on_seed_epoch_and_picture_alone() -> None:
    def partners(found: list[FeatureBatch]) -> torch.Tensor:
        shown = rows_of(found)
        return (shown[shown[:, 0].argsort(), 1] - torch.arange(NUM_IMAGES)) % NUM_IMAGES

    whole = partial(batches, global_batch=NUM_IMAGES, steps=1)
    of_any_batch = partners(batches(global_batch=NUM_IMAGES // 6, steps=6))
    assert torch.equal(partners(whole()), of_any_batch)
    epochs = [partners(whole(start=epoch, steps=epoch + 1)) for epoch in range(5)]
    seeds = [partners(whole(seed=seed)) for seed in range(5)]
    for drawn in (epochs, seeds):
        assert all(not torch.equal(one, other) for one, other in pairwise(drawn))
        # each of three neighbours in a third of 300 draws, within five deviations
        counts = torch.cat(drawn).bincount(minlength=4)[1:]
        assert (counts - 100).abs().max() < 41


def test_neighbours_are_those_of_all_cosines() -> None:
    values = features(240)
    unit = values / values.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    found = feature_set(values)
    assert found.values is values
    assert torch.equal(found.neighbours, cosines.argsort(dim=1, descending=True)[:, :NEIGHBOURS])


@pytest.mark.parametrize(
    ("num_images", "expected"), [(2, 1), (39, 1), (40, 2), (NEIGHBOURS * 20, NEIGHBOURS)]
)
def test_few_pictures_have_few_neighbours(num_images: int, expected: int) -> None:
    assert PICTURES_PER_NEIGHBOUR == 20
    assert feature_set(features(num_images)).neighbours.shape == (num_images, expected)


def test_a_batch_needs_no_backbone() -> None:
    (batch,) = batches(steps=1)
    assert batch.encode(torch.nn.Identity()) == list(batch.views)
