"""Patch k-means against the paper in loops of float64, scikit-learn, and its own invariances."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from swav.ops import patch_kmeans
from swav.ops.patch_kmeans import kmeans, patches_of, triangle_features, zca


def pictures(number: int, channels: int = 3, side: int = 13, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, channels, side, side), generator=generator).float()


def rows_of(batch: torch.Tensor) -> torch.Tensor:
    return patches_of(batch).flatten(0, 1)


def fitted(batch: torch.Tensor, filters: int = 7) -> tuple[Any, torch.Tensor]:
    rows = rows_of(batch)
    whitening = zca(rows)
    white = whitening(rows)
    return whitening, kmeans(white, white[:filters])


def plain(picture: np.ndarray, mean: np.ndarray, matrix: np.ndarray, filters: np.ndarray) -> Any:
    """Section 3 of the paper, one patch after the other."""
    side = picture.shape[1] - 5
    half = (side + 1) // 2
    pooled = np.zeros((2, 2, len(filters)))
    for top in range(side):
        for left in range(side):
            patch = picture[:, top : top + 6, left : left + 6].reshape(-1)
            patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 10)
            distances = np.linalg.norm((patch - mean) @ matrix - filters, axis=1)
            pooled[top // half, left // half] += np.maximum(0, distances.mean() - distances)
    return pooled.reshape(-1)


@pytest.mark.parametrize(("channels", "side"), [(3, 13), (1, 12), (4, 9)])
def test_equal_to_the_paper_in_loops(channels, side):
    batch = pictures(5, channels, side)
    whitening, centroids = fitted(batch)
    settings = [value.double().numpy() for value in (*whitening, centroids)]
    expected = np.stack([plain(picture, *settings) for picture in batch.double().numpy()])
    found = triangle_features(batch, whitening, centroids)
    assert found.shape == (5, 28)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_whitened_patches_are_uncorrelated():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=generator)
    rows = torch.randn(2000, 8, generator=generator) @ mixing + 3
    whitening = zca(rows, epsilon=0.0)
    white = whitening(rows)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(8), rtol=0, atol=1e-3)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-3)
    torch.testing.assert_close(whitening.matrix, whitening.matrix.T)


def test_whitening_of_directions_without_variance_is_bounded_by_epsilon():
    rows = torch.zeros(50, 4)
    rows[:, 0] = torch.linspace(-9, 9, 50)
    variances, _ = torch.linalg.eigh(zca(rows).matrix)
    assert variances.max() == pytest.approx(0.1**-0.5, rel=1e-4)


@pytest.mark.parametrize("chunk", [31, 10_000])
def test_as_tight_as_scikit_learn_from_the_same_start(monkeypatch, chunk):
    monkeypatch.setattr(patch_kmeans, "CHUNK_ROWS", chunk)
    rows = zca(rows_of(pictures(8)))(rows_of(pictures(8)))
    start = rows[:20]
    model = KMeans(20, init=start.numpy(), n_init=1, max_iter=10, algorithm="lloyd").fit(rows)
    found = kmeans(rows, start, iterations=10)
    tightness = torch.cdist(rows, found).min(dim=1).values.square().sum().item()
    assert tightness <= 1.01 * model.inertia_


def test_a_centroid_without_rows_stays():
    rows = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    found = kmeans(rows, torch.tensor([[0.0, 2.0], [9.0, 9.0]]))
    assert found.tolist() == [[0.0, 2.0], [9.0, 9.0]]


def test_pictures_and_filters_in_another_order_give_features_in_that_order():
    batch = pictures(9)
    whitening, centroids = fitted(batch)
    features = triangle_features(batch, whitening, centroids)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    turned = triangle_features(batch[order], whitening, centroids.flip(0))
    expected = features[order].unflatten(1, (4, -1)).flip(2).flatten(1)
    torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-4)


def test_brighter_pictures_are_the_same_and_flat_ones_are_finite():
    batch = pictures(3) / 2
    whitening, centroids = fitted(batch)
    features, brighter = (
        triangle_features(shown, whitening, centroids) for shown in (batch, batch + 40)
    )
    torch.testing.assert_close(features, brighter, rtol=1e-3, atol=1e-3)
    flat = triangle_features(torch.full((1, 3, 13, 13), 7.0), whitening, centroids)
    assert flat.isfinite().all()
    assert fitted(torch.full((2, 3, 13, 13), 7.0))[1].isfinite().all()
