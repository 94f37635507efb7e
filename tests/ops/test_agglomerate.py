"""Merging against SciPy, numbers of clusters that are known, and permuted clusterings."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import cut_tree, linkage

from swav.ops.agglomerate import (
    Match,
    cut,
    match_clusters,
    merge_tree,
    natural_number,
    num_duplicates,
    renumbered,
)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def groups_of_directions(
    number: int, *, each: int, spread: float = 0.05, seed: int = 0
) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = np.linalg.qr(generator.normal(size=(24, 24)))[0][:number]
    return unit(np.repeat(centres, each, axis=0) + generator.normal(0, spread, (number * each, 24)))


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_equal_weights_give_the_tree_of_scipy(seed: int) -> None:
    points = unit(np.random.default_rng(seed).normal(size=(40, 6)))
    tree, theirs = merge_tree(points, np.full(40, 3.0)), linkage(points, "ward")
    np.testing.assert_allclose(tree.heights, theirs[:, 2], rtol=1e-9)
    for number in (1, 2, 7, 39, 40):
        assert same_partition(cut(tree, number), cut_tree(theirs, number)[:, 0])


def test_a_weight_stands_for_that_many_copies() -> None:
    points = unit(np.random.default_rng(0).normal(size=(12, 4)))
    weights = np.random.default_rng(1).integers(1, 6, 12)
    weighted = merge_tree(points, weights.astype(float))
    copies = merge_tree(np.repeat(points, weights, axis=0), np.ones(weights.sum()))
    scale = np.sqrt(weights.mean())  # weights are divided by their mean
    np.testing.assert_allclose(weighted.heights * scale, copies.heights[-11:], atol=1e-6)
    for number in (2, 5):
        groups = np.repeat(cut(weighted, number), weights)
        assert same_partition(groups, cut(copies, number))


@pytest.mark.parametrize("number", [2, 3, 5, 12])
def test_the_natural_number_is_that_of_separate_groups(number: int) -> None:
    points = groups_of_directions(number, each=5)
    tree = merge_tree(points, np.random.default_rng(2).uniform(1, 20, len(points)))
    assert natural_number(tree) == number
    assert same_partition(cut(tree, number), np.repeat(np.arange(number), 5))


@pytest.mark.parametrize("number", [2, 3, 4])
def test_few_centroids_have_a_number_too(number: int) -> None:
    assert natural_number(merge_tree(np.eye(number), np.ones(number))) == 2


def test_copies_are_no_reason_for_a_number() -> None:
    points = np.repeat(groups_of_directions(4, each=3), 2, axis=0)
    assert natural_number(merge_tree(points, np.ones(len(points)))) == 4


def test_copies_are_counted_once_each() -> None:
    points = np.concatenate([np.eye(5), np.eye(5)[:2], np.eye(5)[:1]])
    assert num_duplicates(points, cosine=0.95) == 3


def test_a_permutation_is_found_again() -> None:
    generator = np.random.default_rng(0)
    old, names = generator.integers(0, 6, 300), generator.permutation(6)
    new = names[old]
    matches = match_clusters(old, new)
    assert set(matches) == {Match(cluster, int(names[cluster]), 1.0) for cluster in range(6)}
    assert (renumbered(new, matches, old) == old).all()


def test_the_share_kept_is_of_the_old_cluster() -> None:
    old, new = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 1, 1, 0, 0, 0])
    assert match_clusters(old, new) == (Match(0, 1, 0.75), Match(1, 0, 1.0))


def test_a_new_cluster_takes_no_number_of_an_old_one() -> None:
    old, new = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1])
    matches = match_clusters(old, new)
    assert [(match.old, match.new) for match in matches] == [(0, 0), (1, 1)]
    assert renumbered(np.array([0, 1, 2]), matches, old).tolist() == [0, 1, 3]


def test_nothing_in_common_is_no_match() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert match_clusters(nothing, nothing) == ()
