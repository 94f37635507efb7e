"""How good an answer is: clusters, rankings and features, and how sure one can be of a share."""

from collections.abc import Callable, Mapping
from math import log, sqrt
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student
from torch import Tensor

Numbers = Int[np.ndarray, " images"]


def wilson_interval(
    num_right: float, num_trials: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of shares that ``num_right`` of ``num_trials`` is compatible with.

    Wilson's score interval (1927): inside [0, 1] and right also near the ends, where the
    usual mean +- 1.96 standard errors is not.
    """
    assert 0 <= num_right <= num_trials
    assert num_trials > 0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    proportion = num_right / num_trials
    spread = z * sqrt(proportion * (1 - proportion) / num_trials + (z / (2 * num_trials)) ** 2)
    centre, scale = proportion + z * z / (2 * num_trials), 1 + z * z / num_trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_interval(
    values: Float[np.ndarray, " _"], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval around the mean of shares: +- 1.96 standard errors, inside [0, 1].

    A single value says nothing of its spread: it may be anything. Equal values have Wilson's
    interval, which is that of right and wrong answers with this mean, and they spread most.
    """
    if len(values) < 2:
        return 0.0, 1.0
    if np.ptp(values) == 0:
        return wilson_interval(float(values.sum()), len(values), confidence=confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    spread = z * float(values.std(ddof=1)) / sqrt(len(values))
    return max(0.0, float(values.mean()) - spread), min(1.0, float(values.mean()) + spread)


def jackknife_intervals(
    values: Mapping[str, float],
    measure: Callable[[Int64[np.ndarray, " kept"]], Mapping[str, float]],
    number: int,
    *,
    blocks: int = 20,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return the intervals of measures that only a whole set has, such as mutual information.

    The jackknife that leaves out a block at a time (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, ch. 11): g values without a block each have the standard error
    sqrt((g - 1) / g x sum of squared deviations), times Student's t of g - 1 degrees of freedom.
    A bootstrap would not do: pictures drawn twice agree with themselves.

    Args:
        values: the measures of all pictures, by name; none is above 1 or below -1.
        measure: from the positions of some pictures to the same measures.
        number: of pictures, which are dealt to blocks by a fixed draw.
        blocks: of pictures that are left out together; at most ``number``.
        confidence: share of such intervals that hold the true value.

    Returns:
        The interval of every measure that is defined without each of the blocks, and not the same
        without each.
    """
    # a fixed draw: the same answers have the same interval
    dealt = np.array_split(np.random.default_rng(0).permutation(number), min(blocks, number))
    if len(dealt) < 2:
        return {}
    rest = [measure(np.setdiff1d(np.arange(number), block)) for block in dealt]
    # blocks are few, so Student's t rather than 1.96
    scale = float(student.ppf(0.5 + confidence / 2, len(rest) - 1)) * sqrt(len(rest) - 1)
    intervals = {}
    for name, value in values.items():
        if all(name in without for without in rest):
            spread = scale * float(np.std([without[name] for without in rest]))
            if spread > 0:  # without any spread nothing is known of the next set either
                intervals[name] = (max(-1.0, value - spread), min(1.0, value + spread))
    return intervals


def contingency(assignment: Numbers, labels: Numbers) -> Int64[np.ndarray, "prototypes classes"]:
    """Return how many pictures each used cluster shares with each class that occurs."""
    assert len(assignment) == len(labels)
    clusters, rows = np.unique(assignment, return_inverse=True)
    classes, columns = np.unique(labels, return_inverse=True)
    # one number for each cell: a loop over clusters would take K passes
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


def effective_rank(features: Float[Tensor, "images features"]) -> float:
    """Return how many directions the features use: RankMe (Garrido et al., 2023, eq. 1).

    The exponential of the entropy of the singular values' shares; the features are not centred.
    """
    # float64: the entropy counts many values near zero
    values = torch.linalg.svdvals(features.double())
    # 1e-7 as in RankMe, eq. 1: the logarithm of an empty direction
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(torch.special.entr(shares).sum()))


def alignment(first: Float[Tensor, "images embed"], second: Float[Tensor, "images embed"]) -> float:
    """Return the mean squared distance of two views on the unit sphere: 0 is the same.

    Wang and Isola (2020, arXiv 2005.10242), section 4, with the exponent 2.
    """
    apart = F.normalize(first.double(), dim=1) - F.normalize(second.double(), dim=1)
    return float(apart.square().sum(dim=1).mean())


def uniformity(features: Float[Tensor, "images embed"], *, chunk: int = 1024) -> float:
    """Return the log of the mean of exp(-2 squared distance) over pairs of pictures.

    Wang and Isola (2020), section 4: the lower, the more evenly spread; 0 is all in one place.
    """
    unit = F.normalize(features.double(), dim=1)
    num_pairs = len(unit) * (len(unit) - 1)
    assert num_pairs > 0
    squares = unit.square().sum(dim=1)  # 1, but 0 where all features are: such rows are alike
    total = -float(len(unit))  # of every picture with itself
    for rows, own in zip(torch.split(unit, chunk), torch.split(squares, chunk), strict=True):
        # -2 x squared distance, by the squares: 4 cos - 4 for unit vectors
        total += float((4 * (rows @ unit.T) - 2 * (own[:, None] + squares)).exp().sum())
    # exp(-8) is the least of a pair, so only rounding can take the total to 0
    return log(max(total, 1e-300) / num_pairs)
