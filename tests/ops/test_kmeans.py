"""Spherical k-means against loops in float64, scikit-learn, and itself on two ranks."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from swav.ops import kmeans
from swav.ops.kmeans import spherical_kmeans, tightest_centres


def rows(number: int = 60, embed: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(number, embed, generator=generator), dim=1)


def plain(points: np.ndarray, centroids: np.ndarray, iterations: int) -> np.ndarray:
    """Lloyd's steps on the sphere, one cluster after the other; empty ones stay."""
    centroids = centroids.copy()
    for _ in range(iterations):
        nearest = (points @ centroids.T).argmax(axis=1)
        for cluster in range(len(centroids)):
            if (nearest == cluster).any():
                mean = points[nearest == cluster].mean(axis=0)
                centroids[cluster] = mean / np.linalg.norm(mean)
    return centroids


@pytest.mark.parametrize("iterations", [0, 1, 10])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_equal_to_loops(monkeypatch, iterations, chunk):
    monkeypatch.setattr(kmeans, "CHUNK_ROWS", chunk)
    points = rows()
    start = torch.cat([points[:6], -F.normalize(points.sum(0, keepdim=True), dim=1)])
    start[5] = start[4]  # of equal cosines the first wins: the other is empty
    centroids, nearest = spherical_kmeans(points, start, iterations=iterations)
    expected = plain(points.double().numpy(), start.double().numpy(), iterations)
    np.testing.assert_allclose(centroids, expected, atol=1e-6)
    assert np.array_equal(nearest, (points.double().numpy() @ expected.T).argmax(axis=1))
    if iterations == 1:
        assert torch.equal(centroids[5], start[5])  # empty, and so where it was


def test_the_clusters_of_scikit_learn_where_they_are_clear():
    directions = rows(5, 8, seed=3)
    labels = torch.arange(200) % 5
    points = F.normalize(directions[labels] + 0.1 * rows(200, 8, seed=1), dim=1)
    centroids, nearest = spherical_kmeans(points, points[:5])
    found = KMeans(5, init=points[:5].numpy(), n_init=1).fit(points.numpy())
    assert np.array_equal(nearest, found.labels_)
    means = F.normalize(torch.from_numpy(found.cluster_centers_), dim=1)
    torch.testing.assert_close(centroids, means.to(centroids))


@pytest.mark.ranks
@pytest.mark.parametrize("sizes", [(30, 30), (59, 1), (60, 0)])
def test_the_same_on_two_ranks(run_on_ranks, sizes):
    points = rows()
    cluster = partial(spherical_kmeans, start=points[:7])
    centroids, nearest = cluster(points)
    answers = run_on_ranks(2, cluster, points.split(sizes))
    for found, _ in answers:
        torch.testing.assert_close(found, centroids)
    assert torch.equal(torch.cat([there for _, there in answers]), nearest)


def groups(number: int, *, each: int) -> torch.Tensor:
    """Return unit rows around orthogonal directions, group after group."""
    directions = torch.eye(8)[:number].repeat_interleave(each, dim=0)
    return F.normalize(directions + 0.1 * rows(number * each, 8), dim=1)


def test_separate_groups_are_found_from_any_prototypes() -> None:
    points = groups(6, each=30)
    for prototypes in (None, rows(3, 8), rows(20, 8, seed=1), torch.eye(8)[:1].repeat(9, 1)):
        centres = tightest_centres(points, 6, prototypes=prototypes)
        torch.testing.assert_close(centres.norm(dim=1), torch.ones(6))
        found = (points @ centres.T).argmax(dim=1).view(6, 30)
        assert (found == found[:, :1]).all()
        assert len(set(found[:, 0].tolist())) == 6


def test_the_tightest_start_wins_and_draws_are_fixed() -> None:
    points, prototypes = rows(400, 6), rows(30, 6, seed=3)
    centres = tightest_centres(points, 12, prototypes=prototypes)
    assert torch.equal(centres, tightest_centres(points, 12, prototypes=prototypes))
    without = tightest_centres(points, 12)
    alone, _ = spherical_kmeans(points, points[:12], iterations=50)
    tightness, of_draws, of_one = (
        float((points @ each.T).amax(dim=1).sum()) for each in (centres, without, alone)
    )
    assert tightness >= of_draws - 1e-4
    assert of_draws >= of_one


def test_rows_that_are_all_the_same_have_centres() -> None:
    centres = tightest_centres(torch.eye(4)[:1].repeat(10, 1), 3, prototypes=torch.eye(4))
    assert bool(centres.isfinite().all())
