"""Spherical k-means over the pictures of all ranks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from swav import distributed

CHUNK_ROWS = 8192


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
        sums = distributed.all_reduce_sum(sums)
        lengths = sums.norm(dim=1, keepdim=True)
        # rows that cancel out leave a direction of rounding errors
        centroids = torch.where(lengths > 1e-6, F.normalize(sums, dim=1), centroids)
    return centroids, _sums(rows, centroids)[1]


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
