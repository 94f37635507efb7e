"""Measures without labels: each against a plain statement of itself, and answers that are known."""

import itertools

import numpy as np
import pytest
import torch

from swav.data.eval_transform import EvalTransform
from swav.evals import label_free, network_encoder, part_retrieval
from swav.evals.harness.extract import encode_all
from swav.ops.neighbours import shared_neighbours

NEIGHBOURS = label_free.NUM_NEIGHBOURS


def nearest_by_hand(query: np.ndarray, gallery: np.ndarray, itself: int) -> set[int]:
    cosines = gallery @ query / np.linalg.norm(gallery, axis=1) / np.linalg.norm(query)
    order = sorted((row for row in range(len(gallery)) if row != itself), key=lambda r: -cosines[r])
    return set(order[:NEIGHBOURS])


def drawn_features(number: int = 40, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed))


def test_shared_neighbours_do_not_ask_for_the_order():
    first, second = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[3, 1, 9], [7, 8, 9]])
    assert shared_neighbours(first, second) == pytest.approx((2 / 3 + 0) / 2)


def test_agreement_is_that_of_a_loop_over_pictures():
    whole = drawn_features()
    view = whole + 0.4 * drawn_features(seed=1)
    shares = [
        len(
            nearest_by_hand(whole[row].numpy(), whole.numpy(), row)
            & nearest_by_hand(view[row].numpy(), whole.numpy(), row)
        )
        / NEIGHBOURS
        for row in range(len(whole))
    ]
    assert 0.2 < np.mean(shares) < 0.9
    assert label_free.agreement_under_views(whole, view) == pytest.approx(np.mean(shares))
    assert label_free.agreement_under_views(whole, 3 * whole) == 1


def test_overlap_is_that_of_a_loop_and_does_not_ask_for_the_same_width():
    first = drawn_features()
    second = torch.cat([first, drawn_features(width=2, seed=1)], dim=1)
    shares = [
        len(
            nearest_by_hand(first[row].numpy(), first.numpy(), row)
            & nearest_by_hand(second[row].numpy(), second.numpy(), row)
        )
        / NEIGHBOURS
        for row in range(len(first))
    ]
    assert label_free.overlap(first, second) == pytest.approx(np.mean(shares))
    assert label_free.overlap(first, first) == 1


def test_a_part_finds_its_picture_by_the_largest_cosine():
    whole = drawn_features()
    part = whole + 0.8 * drawn_features(seed=1)
    unit_part, unit = (rows / rows.norm(dim=1, keepdim=True) for rows in (part, whole))
    right = [max(range(40), key=lambda r: float(unit_part[p] @ unit[r])) == p for p in range(40)]
    assert label_free.found_by_part(whole, part) == pytest.approx(np.mean(right))


def pairs_index(first: np.ndarray, second: np.ndarray) -> float:
    """Return the adjusted Rand index by its definition, over all pairs of pictures."""
    pairs = list(itertools.combinations(range(len(first)), 2))
    in_first = np.array([first[a] == first[b] for a, b in pairs])
    in_second = np.array([second[a] == second[b] for a, b in pairs])
    chance = in_first.sum() * in_second.sum() / len(pairs)
    mean = (in_first.sum() + in_second.sum()) / 2
    return float(((in_first & in_second).sum() - chance) / (mean - chance))


def test_stability_is_the_index_over_pairs_of_two_seeds():
    features = drawn_features(60)
    unit = torch.nn.functional.normalize(features, dim=1)
    found = [
        label_free.kmeans(unit, 7, restarts=label_free.KMEANS_RESTARTS, seed=seed).labels_
        for seed in label_free.KMEANS_SEEDS
    ]
    expected = pairs_index(*found)
    assert expected < 0.99
    assert label_free.stability_of_clusters(features, 7) == pytest.approx(expected)


def test_tight_groups_are_stable_and_features_that_are_all_alike_are_not(made):
    assert label_free.stability_of_clusters(made.separable(spread=0.01).values, 4) == 1
    assert label_free.stability_of_clusters(torch.ones(50, 3), 5) == 0
    assert -0.1 < label_free.stability_of_clusters(torch.eye(3).repeat(20, 1), 5) <= 1


@pytest.mark.parametrize(
    ("images", "clusters"), [(3, 2), (200, 10), (2000, 32), (20_000, 100), (100_000, 100)]
)
def test_the_number_of_clusters_is_the_root_of_half_the_pictures(images, clusters):
    assert label_free.num_clusters(images) == clusters


def test_pictures_lie_evenly_in_the_set_and_are_all_if_there_are_few(made):
    pictures = made.pictures_of(100)
    assert list(label_free.some(pictures, 5).names) == [
        pictures.names[r] for r in (0, 25, 50, 74, 99)
    ]
    assert len(label_free.some(pictures)) == 100


def test_features_are_those_of_other_evaluations_in_any_batch(made):
    pictures = made.pictures_of(300)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten())
    transform = EvalTransform(input_size=(3, 20, 20), mean=(0.5,) * 3, std=(0.25,) * 3)
    encoder = network_encoder(network, transform)
    told = label_free.encoded(network, transform, pictures)
    assert torch.equal(told.whole, encode_all(encoder, pictures).values)
    result = part_retrieval.run(part_retrieval.PartRetrievalConfig(), encoder, pictures)
    recall = label_free.found_by_part(told.whole, told.part)
    assert recall == pytest.approx(result.metrics["recall_at_1"])
    alone = label_free.encoded(network, transform, pictures.subset(np.arange(3)))
    torch.testing.assert_close(alone.view, told.view[:3])
    assert 0 < label_free.agreement_under_views(told.whole, told.view) < 1


def test_networks_of_two_sizes_are_shown_the_same_part_of_a_picture(made):
    pictures = made.pictures_of(30, size=64)
    whole = [pictures[row] for row in range(30)]
    small, large = (
        label_free.mild_views(whole, list(range(30)), (side, side)) for side in (16, 64)
    )
    shrunk = torch.nn.functional.interpolate(large.float(), (16, 16), mode="area")
    assert (shrunk - small.float()).abs().mean() < 4
