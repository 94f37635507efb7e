"""Patch k-means fitted on pictures: the same each time, and better where pixels fail."""

import numpy as np
import pytest
import torch

from swav.data.sources.open import from_arrays
from swav.data.sources.pictures import Pictures
from swav.evals import KNNConfig, Subject, knn
from swav.evals.harness import patch_kmeans
from swav.evals.harness.eval_data import one_set
from swav.evals.harness.extract import encode_all
from swav.evals.harness.patch_kmeans import patch_kmeans_encoder


def noise(number: int = 60) -> Pictures:
    """Return black and white noise of fine grains and of coarse ones, no two alike."""
    generator = np.random.default_rng(0)
    labels = np.arange(number) % 2
    fine = generator.integers(0, 2, (number, 32, 32))
    coarse = fine[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    pictures = np.where(labels[:, None, None] == 1, coarse, fine) * 255
    return from_arrays(pictures.astype(np.uint8)[..., None], labels)


@pytest.mark.parametrize("num_filters", [20, 200])
def test_four_standardised_numbers_a_filter_the_same_each_time(made, num_filters):
    pictures = made.pictures_of(30)
    one, two = (
        encode_all(patch_kmeans_encoder(pictures, num_filters=num_filters), pictures, batch_size=n)
        for n in (7, 30)
    )
    assert one.values.shape == (30, 4 * num_filters)
    torch.testing.assert_close(one.values, two.values, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.values.mean(dim=0), torch.zeros(4 * num_filters))
    again = encode_all(patch_kmeans_encoder(pictures, num_filters=num_filters), pictures)
    assert torch.equal(two.values, again.values)


def test_textures_are_told_apart_as_pixels_cannot():
    data = one_set(noise())
    config = KNNConfig(k=(5,))
    pixels, patches = (
        knn.run(config, subject.train_features).metrics["top1_k5"]
        for subject in (Subject(data), Subject(data, encoder_of=patch_kmeans_encoder))
    )
    assert patches == 1.0
    assert pixels < 0.8


def test_only_pictures_that_are_drawn_are_learnt_from(monkeypatch, made):
    monkeypatch.setattr(patch_kmeans, "MAX_PICTURES", 5)
    values = made.pictures_of(12).pixels
    changing = []
    for row in range(12):
        changed = values.clone()
        changed[row] = 255 - changed[row].flip(1)
        features = [
            patch_kmeans_encoder(from_arrays(some), num_filters=8)(list(values))
            for some in (values, changed)
        ]
        changing.append(not torch.equal(*features))
    assert sum(changing) == 5
