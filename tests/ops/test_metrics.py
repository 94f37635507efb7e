"""Measures against scikit-learn, scipy, exhaustive search and their own definition."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from swav.ops.metrics import (
    alignment,
    contingency,
    effective_rank,
    hungarian_matches,
    jackknife_intervals,
    mean_interval,
    purity,
    uniformity,
    wilson_interval,
)


@pytest.fixture
def answers():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 60) * 10 - 7  # neither from zero nor without gaps
    assignment = np.where(generator.random(60) < 0.5, labels + 100, generator.integers(3, 8, 60))
    return assignment, labels


@pytest.mark.parametrize(
    ("right", "trials"), [(0, 5), (1, 1), (3, 10), (50, 100), (999, 1000), (7, 7)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_interval_is_scipys(right, trials, confidence):
    expected = binomtest(right, trials).proportion_ci(confidence, method="wilson")
    found = wilson_interval(right, trials, confidence=confidence)
    np.testing.assert_allclose(found, (expected.low, expected.high), atol=1e-12)


def test_contingency_is_scikit_learns(answers):
    assignment, labels = answers
    expected = contingency_matrix(labels, assignment).T
    np.testing.assert_array_equal(contingency(assignment, labels), expected)


def test_purity_is_the_share_of_each_clusters_commonest_class(answers):
    assignment, labels = answers
    commonest = [
        np.unique(labels[assignment == cluster], return_counts=True)[1].max()
        for cluster in np.unique(assignment)
    ]
    assert purity(assignment, labels) == pytest.approx(sum(commonest) / 60)


def test_hungarian_matching_is_the_best_of_all_matchings():
    generator = np.random.default_rng(1)
    for _ in range(20):
        labels, assignment = generator.integers(0, 4, (2, 30))
        best = max(
            np.sum(np.array(names)[assignment] == labels) for names in permutations(range(4))
        )
        assert hungarian_matches(assignment, labels) == best


def test_clusters_beyond_the_number_of_classes_count_as_wrong():
    labels = np.array([0, 0, 0, 0, 1, 1])
    assignment = np.array([5, 5, 5, 9, 2, 2])
    assert hungarian_matches(assignment, labels) == 5
    assert purity(assignment, labels) == 1


def test_names_of_clusters_do_not_matter(answers):
    assignment, labels = answers
    renamed = 1000 - 3 * assignment
    assert hungarian_matches(renamed, labels) == hungarian_matches(assignment, labels)
    assert purity(renamed, labels) == purity(assignment, labels)


def test_effective_rank_counts_equal_directions():
    basis = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))[0]
    for rank in (1, 5, 20):
        assert effective_rank(basis[:, :rank] @ basis[:rank]) == pytest.approx(rank, rel=1e-3)
    values = np.random.default_rng(0).normal(size=(30, 8)) * np.arange(1, 9)
    shares = np.linalg.svd(values, compute_uv=False)
    shares = shares / shares.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(torch.from_numpy(values).float()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("chunk", [7, 1024])
def test_alignment_and_uniformity_are_the_papers_means_over_pairs(chunk):
    first, second = np.random.default_rng(0).normal(size=(2, 25, 6))
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second)]
    tensors = [torch.from_numpy(each).float() * 3 for each in (first, second)]
    expected = np.mean([((a - b) ** 2).sum() for a, b in zip(*unit, strict=True)])
    assert alignment(*tensors) == pytest.approx(expected, rel=1e-5)
    pairs = [((a - b) ** 2).sum() for a, b in permutations(unit[0], 2)]
    expected = np.log(np.mean(np.exp(-2 * np.array(pairs))))
    assert uniformity(tensors[0], chunk=chunk) == pytest.approx(expected, rel=1e-5)
    assert uniformity(torch.ones(10, 3)) == pytest.approx(0)
    assert uniformity(torch.zeros(10, 3), chunk=chunk) == pytest.approx(0)


def test_the_interval_of_a_mean_covers_it_nineteen_times_of_twenty():
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        low, high = mean_interval(generator.beta(2, 3, size=60))
        covered.append(low <= 2 / 5 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert mean_interval(np.array([0.3])) == (0.0, 1.0)
    assert mean_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert mean_interval(np.ones(40)) == wilson_interval(40, 40)
    low, high = mean_interval(np.full(20, 0.1))
    assert low < 0.1 < high


def test_the_jackknife_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(2).normal(size=30)
    found = jackknife_intervals(
        {"mean": values.mean()}, lambda rows: {"mean": values[rows].mean()}, 30, blocks=30
    )
    low, high = found["mean"]
    expected = student.interval(0.95, 29, values.mean(), values.std(ddof=1) / np.sqrt(30))
    assert (low, high) == pytest.approx(expected)


def test_the_jackknife_holds_the_information_of_the_population():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 4, 200_000)
    assignment = np.where(generator.random(len(labels)) < 0.5, labels, generator.integers(0, 4))
    truth = normalized_mutual_info_score(labels, assignment)
    held = []
    for rows in np.split(generator.permutation(len(labels))[:100_000], 200):
        one, other = labels[rows], assignment[rows]

        def information(kept, one=one, other=other):
            return {"nmi": normalized_mutual_info_score(one[kept], other[kept])}

        (low, high) = jackknife_intervals(information(np.arange(500)), information, 500)["nmi"]
        held.append(low <= truth <= high)
    assert 0.9 < np.mean(held) < 0.99


def test_the_jackknife_leaves_out_what_a_part_does_not_have():
    def measure(rows):
        last = 0.9 if 7 in rows else 0.8
        return {"number": last, "same": 1.0} | ({"first": last} if 0 in rows else {})

    found = jackknife_intervals(measure([0, 7]), measure, 8)
    assert found.keys() == {"number"}  # of what is always the same nothing is known
    assert found["number"][0] < 0.9 < found["number"][1] <= 1
    assert jackknife_intervals(measure([0]), measure, 1) == {}
