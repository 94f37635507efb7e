"""Fewer clusters from many: a tree of merged centroids, and numbers that outlive a retraining."""

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from swav.ops.metrics import contingency

LEAST_HEIGHT = 0.05
"""Of the highest merge: lower ones join copies, between which every factor is large."""


class MergeTree(NamedTuple):
    """The merges of centroids, the cheapest first."""

    merges: Int[np.ndarray, "_ 2"]
    """A cluster's first member, and that of the cluster which joins it."""
    heights: Float[np.ndarray, " _"]


class Match(NamedTuple):
    """A new cluster that takes the number of an old one."""

    old: int
    new: int
    kept: float
    """Share of the old cluster's pictures that are in the new one."""


def merge_tree(
    centroids: Float[np.ndarray, "prototypes embed"], weights: Float[np.ndarray, " prototypes"]
) -> MergeTree:
    """Return the tree of Ward's merges of weighted centroids.

    Each merge adds least to the squared distances of all pictures to the mean of their cluster,
    were each at its centroid (Ward, 1963): 2 w v / (w + v) |a - b|^2, whose root is the height.
    This is what k-means makes small, and unlike average linkage it does not set single outliers
    apart. Distances are updated as Lance and Williams (1967) do, whose formula keeps weights
    (Murtagh and Legendre, 2014, arXiv 1111.6285). Of unit vectors |a - b|^2 is 2 - 2 cosine.

    Args:
        centroids: unit vectors, for cosine distance.
        weights: positive, in any unit: they are divided by their mean.
    """
    sizes = weights / weights.mean()
    costs = _ward_costs(centroids.astype(np.float64), sizes)
    everyone = np.arange(len(costs))
    nearest = costs.argmin(axis=1)
    merges, heights = [], []
    for _ in range(len(costs) - 1):
        best = int(costs[everyone, nearest].argmin())
        stays, joins = sorted((best, int(nearest[best])))
        cost = costs[stays, joins]
        merges.append((stays, joins))
        heights.append(np.sqrt(cost))
        both = (sizes[stays] + sizes) * costs[stays] + (sizes[joins] + sizes) * costs[joins]
        row = (both - sizes * cost) / (sizes[stays] + sizes[joins] + sizes)
        costs[stays], costs[:, stays] = row, row
        costs[joins], costs[:, joins] = np.inf, np.inf
        sizes[stays] += sizes[joins]
        # a merge brings no cluster nearer to another than its nearer part was
        outdated = np.isin(nearest, (stays, joins))
        outdated[[stays, joins]] = True
        nearest[outdated] = costs[outdated].argmin(axis=1)
    return MergeTree(np.array(merges, dtype=np.int64).reshape(-1, 2), np.array(heights))


def _ward_costs(
    centroids: Float[np.ndarray, "prototypes embed"], sizes: Float[np.ndarray, " prototypes"]
) -> Float[np.ndarray, "prototypes prototypes"]:
    """Return the cost of every merge of two, infinite with itself."""
    squares = (centroids**2).sum(axis=1)
    apart = (squares[:, None] + squares - 2 * centroids @ centroids.T).clip(min=0)
    costs: np.ndarray = 2 * sizes[:, None] * sizes / (sizes[:, None] + sizes) * apart
    np.fill_diagonal(costs, np.inf)
    return costs


def cut(tree: MergeTree, number: int) -> Int[np.ndarray, " prototypes"]:
    """Return the cluster of each centroid, 0 to ``number`` - 1 in the order of first members."""
    groups = np.arange(len(tree.merges) + 1)
    for stays, joins in tree.merges[: len(groups) - number]:
        groups[groups == joins] = stays
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def natural_number(tree: MergeTree) -> int:
    """Return the number of clusters, of 2 to half the centroids, after which merging costs most.

    The next merge is higher than the last by the largest factor. It finds clusters that are apart
    and have several centroids each; where none are apart, it is the number of the largest chance
    gap. Clusters within clusters have several answers, of which it gives one.
    """
    most = len(tree.merges) + 1
    heights = tree.heights.clip(min=max(LEAST_HEIGHT * float(tree.heights.max()), 1e-12))
    numbers = np.arange(2, max(2, most // 2) + 1)
    last = np.where(numbers < most, heights[(most - numbers - 1).clip(min=0)], heights[0])
    return int(numbers[(heights[most - numbers] / last).argmax()])


def num_duplicates(unit: Float[np.ndarray, "prototypes embed"], *, cosine: float) -> int:
    """Return how many vectors could be left out, as others stand at this cosine or nearer."""
    groups, _ = connected_components(unit @ unit.T >= cosine, directed=False)
    return len(unit) - int(groups)


def match_clusters(
    old: Int[np.ndarray, " images"], new: Int[np.ndarray, " images"]
) -> tuple[Match, ...]:
    """Return which new clusters are which old ones, by the most common pictures in all.

    One to one (Kuhn, 1955: the Hungarian method); clusters that share no picture are no match.

    Args:
        old: cluster of each picture.
        new: cluster of the same pictures.
    """
    if not len(old):
        return ()
    shared = contingency(old, new)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    olds, news, totals = np.unique(old), np.unique(new), shared.sum(axis=1)
    return tuple(
        Match(int(olds[row]), int(news[column]), float(shared[row, column] / totals[row]))
        for row, column in zip(rows, columns, strict=True)
        if shared[row, column]
    )


def renumbered(
    ids: Int[np.ndarray, " _"], matches: Sequence[Match], old: Int[np.ndarray, " images"]
) -> Int[np.ndarray, " _"]:
    """Return the numbers of old clusters for those matched; others get numbers that none had."""
    number = {match.new: match.old for match in matches}
    taken = set(np.unique(old).tolist())
    free = (candidate for candidate in count() if candidate not in taken)
    for cluster in np.unique(ids).tolist():
        if cluster not in number:
            number[cluster] = next(free)
    return np.array([number[cluster] for cluster in ids.tolist()], dtype=np.int64)
