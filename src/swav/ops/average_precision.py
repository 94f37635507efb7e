"""Average precision of a ranking: the area under its curve, and VOC 2007's eleven points."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from sklearn.metrics import average_precision_score
from torch import Tensor

Scores = Float[np.ndarray, " images"]
Hits = Bool[np.ndarray, " images"]


def average_precision(scores: Scores, hits: Hits) -> float:
    """Return the sum over ranks of precision times the rise of recall (scikit-learn's).

    Raises:
        ValueError: if nothing is to be found.
    """
    _check(hits)
    return float(average_precision_score(hits, scores))


def precision_of_rankings(right: Bool[Tensor, "batch images"]) -> Float64[Tensor, " batch"]:
    """Return the average precision of each row: its answers, best first, are right or not.

    Every row has a right answer.
    """
    # float64: long rankings add up thousands of small terms
    ranks = torch.arange(1, right.shape[1] + 1, dtype=torch.float64)
    precision = right.cumsum(dim=1) / ranks
    return (precision * right).sum(dim=1) / right.sum(dim=1)


def eleven_point_precision(scores: Scores, hits: Hits) -> float:
    """Return the mean of the best precision at recall 0, 0.1, ..., 1 or above.

    The measure of VOC until 2009 (Everingham et al., 2010, sec. 4.2). Equal scores are one rank.

    Raises:
        ValueError: if nothing is to be found.
    """
    _check(hits)
    # stable, so that equal scores keep one order on every machine
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of equal scores
    num_found = np.cumsum(hits[order])[ends]
    precision = num_found / (ends + 1)
    # the best precision at this recall or above (Everingham et al., sec. 4.2)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # in whole numbers, since 0.3 is not a tenth of three in binary
    points = np.arange(11) * int(hits.sum())
    first = np.searchsorted(10 * num_found, points)
    return float(best[first].mean())


def _check(hits: Hits) -> None:
    if not hits.any():
        raise ValueError("average precision needs at least one positive")
