"""How good an answer is: clusters against labels, and how sure one can be of a share."""

from math import sqrt
from statistics import NormalDist

import numpy as np
from jaxtyping import Int, Int64
from scipy.optimize import linear_sum_assignment

Numbers = Int[np.ndarray, " images"]


def wilson_interval(
    num_right: int, num_trials: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of shares that ``num_right`` of ``num_trials`` is compatible with.

    Wilson's score interval (1927): inside [0, 1] and right also near the ends, where the
    usual mean +- 1.96 standard errors is not.
    """
    assert 0 <= num_right <= num_trials
    assert num_trials > 0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = num_right / num_trials
    spread = z * sqrt(share * (1 - share) / num_trials + (z / (2 * num_trials)) ** 2)
    centre, scale = share + z * z / (2 * num_trials), 1 + z * z / num_trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def contingency(assignment: Numbers, labels: Numbers) -> Int64[np.ndarray, "prototypes classes"]:
    """Return how many pictures each used cluster shares with each class that occurs."""
    assert len(assignment) == len(labels)
    clusters, rows = np.unique(assignment, return_inverse=True)
    classes, columns = np.unique(labels, return_inverse=True)
    cells = np.bincount(rows * len(classes) + columns, minlength=len(clusters) * len(classes))
    return cells.reshape(len(clusters), len(classes)).astype(np.int64)


def purity(assignment: Numbers, labels: Numbers) -> float:
    """Return the share of pictures that belong to the commonest class of their cluster.

    It grows with the number of clusters: compare it at equal numbers only.
    """
    return float(contingency(assignment, labels).max(axis=1).sum() / len(labels))


def hungarian_matches(assignment: Numbers, labels: Numbers) -> int:
    """Return the number of pictures whose cluster is matched with their class.

    Clusters and classes are matched one to one so that this is largest (Kuhn, 1955); clusters
    without a class count as wrong.
    """
    shared = contingency(assignment, labels)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    return int(shared[rows, columns].sum())


def hungarian_accuracy(assignment: Numbers, labels: Numbers) -> float:
    """Return the share of pictures whose cluster is matched with their class."""
    return hungarian_matches(assignment, labels) / len(labels)
