"""Average precision against loops over ranks in float64, and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from swav.ops.average_precision import (
    average_precision,
    eleven_point_precision,
    precision_of_rankings,
)


def looped(scores, hits):
    """Return precision and recall at every threshold, by counting."""
    for threshold in sorted(set(scores.tolist()), reverse=True):
        kept = [hit for score, hit in zip(scores, hits, strict=True) if score >= threshold]
        yield sum(kept) / len(kept), sum(kept) / sum(hits)


def area(scores, hits):
    total, before = 0.0, 0.0
    for precision, recall in looped(scores, hits):
        total, before = total + precision * (recall - before), recall
    return total


def eleven(scores, hits):
    curve = list(looped(scores, hits))
    points = [number / 10 for number in range(11)]
    best = [max(p for p, recall in curve if recall >= point - 1e-12) for point in points]
    return sum(best) / 11


@pytest.mark.parametrize("seed", range(6))
def test_both_measures_are_what_counting_says_ties_included(seed):
    generator = np.random.default_rng(seed)
    hits = generator.random(40) < 0.3
    hits[0] = True
    scores = generator.normal(size=40) + hits
    scores = np.round(scores, 1) if seed % 2 else scores
    assert average_precision(scores, hits) == pytest.approx(area(scores, hits), abs=1e-12)
    assert average_precision(scores, hits) == pytest.approx(average_precision_score(hits, scores))
    assert eleven_point_precision(scores, hits) == pytest.approx(eleven(scores, hits), abs=1e-12)


def test_rows_of_answers_have_scikit_learns_average_precision():
    right = torch.rand(30, 12, generator=torch.Generator().manual_seed(0)) < 0.3
    right[:, 5] = True
    ranks = -np.arange(12.0)
    expected = [average_precision_score(row.numpy(), ranks) for row in right]
    np.testing.assert_allclose(precision_of_rankings(right), expected)


def test_known_rankings():
    hits = np.array([True, False, True, False])
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    assert average_precision(scores, hits) == pytest.approx((1 + 2 / 3) / 2)
    # recall 0 to 0.5: precision 1; 0.6 to 1: 2/3
    assert eleven_point_precision(scores, hits) == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert eleven_point_precision(scores, np.array([True, True, False, False])) == 1


@pytest.mark.parametrize("measure", [average_precision, eleven_point_precision])
def test_nothing_to_find_has_no_precision(measure):
    with pytest.raises(ValueError, match="at least one positive"):
        measure(np.zeros(3), np.zeros(3, dtype=np.bool_))
