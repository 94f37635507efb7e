"""Spherical k-means: over the pictures of all ranks, and the best of several starts."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

from swav import distributed
from swav.ops.agglomerate import cut, merge_tree

CHUNK_ROWS = 8192
DRAWS = 5
"""Starts by k-means++, beside that from the tree of prototypes."""
MOST_ITERATIONS = 50
STILL_MOVING = 1e-4
"""Share of the rows that change their centre, below which a start is done."""


@torch.no_grad()
def spherical_kmeans(
    rows: Float[Tensor, "rows embed"],
    start: Float[Tensor, "prototypes embed"],
    *,
    # DeepCluster-v2 has ten
    iterations: int = 10,
) -> tuple[Float[Tensor, "prototypes embed"], Int[Tensor, " rows"]]:
    """Return unit centroids, the same on all ranks, and the nearest one of each row.

    Each iteration assigns every row to the centroid of largest cosine, and moves each centroid to
    the direction of the mean of its rows on all ranks (DeepCluster-v2; SwAV, appendix). **Empty
    clusters** keep their centroid, which may win rows again later, as do those whose rows add up
    to nothing. Of equal cosines the first centroid wins.

    Args:
        rows: unit vectors, this rank's share; a rank may have none.
        start: unit centroids to start from, the same on all ranks.
        iterations: of assigning and moving; one more assignment follows.
    """
    centroids = start.float()
    for _ in range(iterations):
        # sums and not means: the direction is the same, and ranks add up
        sums, _ = _sums(rows, centroids)
        centroids = _moved(centroids, distributed.all_reduce_sum(sums))
    return centroids, _sums(rows, centroids)[1]


@torch.no_grad()
def tightest_centres(
    rows: Float[Tensor, "images embed"],
    number: int,
    *,
    prototypes: Float[Tensor, "_ embed"] | None = None,
    seed: int = 0,
) -> Float[Tensor, "prototypes embed"]:
    """Return the unit centres of spherical k-means whose rows have the largest cosines in all.

    Of ``DRAWS`` starts by k-means++ (Arthur and Vassilvitskii, 2007) and, where there are at least
    ``number`` prototypes, one from the cut of their tree of merges.

    Args:
        rows: unit vectors; other ranks play no part.
        number: of centres, at most as many as rows.
        prototypes: in the space of ``rows``, of any length.
        seed: of the draws.
    """
    values = rows.float()
    starts = []
    if prototypes is not None and number <= len(prototypes):
        starts.append(_merged(values, F.normalize(prototypes.float(), dim=1), number))
    for draw in range(DRAWS):
        drawn, _ = kmeans_plusplus(values.numpy(), number, random_state=seed + draw)
        starts.append(torch.from_numpy(drawn))
    # the first of equals, so that the result depends on nothing but the rows
    return max((_settled(values, start) for start in starts), key=lambda settled: settled[1])[0]


def _merged(
    rows: Float[Tensor, "images embed"], unit: Float[Tensor, "_ embed"], number: int
) -> Float[Tensor, "prototypes embed"]:
    """Return the mean directions of the rows whose nearest prototypes are merged."""
    sums, nearest = _sums(rows, unit)
    # one row more at every prototype, so that one without any has a weight and a direction too
    weights = torch.bincount(nearest, minlength=len(unit)) + 1.0
    groups = cut(merge_tree(unit.double().numpy(), weights.double().numpy()), number)
    merged = unit.new_zeros(number, unit.shape[1])
    return F.normalize(merged.index_add_(0, torch.from_numpy(groups), sums + unit), dim=1)


def _settled(
    rows: Float[Tensor, "images embed"], start: Float[Tensor, "prototypes embed"]
) -> tuple[Float[Tensor, "prototypes embed"], float]:
    """Return the centres when hardly a row changes its centre, and the sum of all cosines."""
    centres, before = start, None
    for _ in range(MOST_ITERATIONS):
        sums, nearest = _sums(rows, centres)
        centres = _moved(centres, sums)
        if before is not None and int((nearest != before).sum()) <= STILL_MOVING * len(rows):
            break
        before = nearest
    return centres, float((rows * centres[nearest]).sum(dtype=torch.float64))


def _moved(
    centroids: Float[Tensor, "prototypes embed"], sums: Float[Tensor, "prototypes embed"]
) -> Float[Tensor, "prototypes embed"]:
    """Return the directions of sums; a centroid stays where its rows add up to nothing."""
    # rows that cancel out leave a direction of rounding errors
    lengths = sums.norm(dim=1, keepdim=True)
    return torch.where(lengths > 1e-6, F.normalize(sums, dim=1), centroids)


def _sums(
    rows: Float[Tensor, "rows embed"], centroids: Float[Tensor, "prototypes embed"]
) -> tuple[Float[Tensor, "prototypes embed"], Int[Tensor, " rows"]]:
    """Return the sum of this rank's rows of each cluster, and the cluster of each row.

    Chunks bound the memory; a product with one-hot rows adds up in the same order each time,
    which scattering on a GPU would not.
    """
    sums, nearest = torch.zeros_like(centroids), [torch.empty(0, dtype=torch.long).to(rows.device)]
    for chunk in torch.split(rows.float(), CHUNK_ROWS):
        chosen = (chunk @ centroids.T).argmax(dim=1)
        sums += F.one_hot(chosen, len(centroids)).to(chunk).T @ chunk
        nearest.append(chosen)
    return sums, torch.cat(nearest)
