"""Features of pictures by k-means on whitened patches: what needs neither a network nor training.

Coates, Ng and Lee, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning"
(AISTATS 2011), section 3 with their "k-means (triangle)"; what the paper leaves open is that of
its code: variances are of samples, the odd row and column belong to the upper and left quadrants.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

PATCH_SIDE = 6
"""Height and width; 6 was the best of the paper's."""
CONTRAST = 10.0
"""Added to the variance of a patch whose values are 0 to 255: noise of a flat one stays small."""
EPSILON = 0.1
"""Added to the variance along each direction before it is divided out."""
CHUNK_ROWS = 8192
CHUNK_PICTURES = 2
"""Distances of so many are in memory, and in the cache of a core, at a time."""


class Whitening(NamedTuple):
    """Mean and symmetric matrix after which patches have nearly the identity as covariance."""

    mean: Float[Tensor, " values"]
    matrix: Float[Tensor, "values values"]

    def __call__(self, patches: Float[Tensor, "rows values"]) -> Float[Tensor, "rows values"]:
        """Return the whitened patches."""
        return (patches - self.mean) @ self.matrix


def patches_of(
    pictures: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch patches values"]:
    """Return every patch of pictures with values 0 to 255, its mean 0 and its contrast even."""
    side = PATCH_SIDE
    windows = pictures.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
    patches = windows.flatten(3).flatten(1, 2)
    patches -= patches.mean(dim=2, keepdim=True)
    # not torch.var, which takes a third of the time of the features
    variance = patches.square().sum(dim=2, keepdim=True) / (patches.shape[2] - 1)
    return patches.mul_((variance + CONTRAST).rsqrt_())


def zca(patches: Float[Tensor, "rows values"], *, epsilon: float = EPSILON) -> Whitening:
    """Return the whitening of patches that leaves them as near to themselves as any (ZCA)."""
    variances, directions = torch.linalg.eigh(torch.cov(patches.double().T))
    matrix = directions * (variances + epsilon).rsqrt() @ directions.T
    return Whitening(patches.mean(dim=0), matrix.float())


def kmeans(
    rows: Float[Tensor, "rows values"],
    start: Float[Tensor, "filters values"],
    *,
    iterations: int = 10,
) -> Float[Tensor, "filters values"]:
    """Return the centroids after Lloyd's steps from ``start``; one without rows stays."""
    centroids = start.clone()
    for _ in range(iterations):
        sums, counts = torch.zeros_like(centroids), centroids.new_zeros(len(centroids), 1)
        for chunk in torch.split(rows, CHUNK_ROWS):
            nearest = _nearest(chunk, centroids)
            sums.index_add_(0, nearest, chunk)
            counts.index_add_(0, nearest, chunk.new_ones(len(chunk), 1))
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return centroids


def _nearest(
    rows: Float[Tensor, "rows values"], centroids: Float[Tensor, "filters values"]
) -> Int64[Tensor, " rows"]:
    # of squared distances the part that tells centroids apart, halved
    return (rows @ centroids.T).sub_(0.5 * centroids.square().sum(dim=1)).argmax(dim=1)


def triangle_features(
    pictures: Float[Tensor, "batch channels height width"],
    whitening: Whitening,
    centroids: Float[Tensor, "filters values"],
) -> Float[Tensor, "batch features"]:
    """Return how near the patches of each quadrant are to each centroid: four numbers a filter.

    A patch adds ``max(0, mean(z) - z_k)`` to filter k, where z are its distances to the centroids:
    nothing for those that are farther away than the average.
    """
    side = pictures.shape[-1] - PATCH_SIDE + 1
    features = []
    for chunk in torch.split(pictures, CHUNK_PICTURES):
        white = whitening(patches_of(chunk).flatten(0, 1))
        nearness = _triangle(white, centroids)
        features.append(_quadrant_sums(nearness.reshape(len(chunk), side, -1, len(centroids))))
    return torch.cat(features)


def _triangle(
    rows: Float[Tensor, "rows values"], centroids: Float[Tensor, "filters values"]
) -> Float[Tensor, "rows filters"]:
    lengths = centroids.square().sum(dim=1)
    squared = torch.addmm(lengths, rows, centroids.T, alpha=-2)
    # of equal ones rounding may leave less than 0
    distances = squared.add_(rows.square().sum(dim=1, keepdim=True)).clamp_(min=0).sqrt_()
    return torch.sub(distances.mean(dim=1, keepdim=True), distances, out=distances).clamp_(min=0)


def _quadrant_sums(
    values: Float[Tensor, "batch tall wide filters"],
) -> Float[Tensor, "batch features"]:
    tall, wide = (-(-size // 2) for size in values.shape[1:3])
    halves = values[:, :tall], values[:, tall:]
    quadrants = [part for half in halves for part in (half[:, :, :wide], half[:, :, wide:])]
    return torch.cat([quadrant.sum(dim=(1, 2)) for quadrant in quadrants], dim=1)
