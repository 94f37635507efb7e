"""Features and pictures whose right answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swav.data.sources.open import from_arrays
from swav.data.sources.pictures import Pictures
from swav.evals.harness.extract import Features

CLASSES = ("ant", "bee", "cat", "dog")


def features_of(values: np.ndarray, labels: np.ndarray | None) -> Features:
    return Features(
        values=torch.from_numpy(values).float(),
        labels=None if labels is None else torch.from_numpy(labels),
        names=[f"{row}.png" for row in range(len(values))],
        classes=() if labels is None else CLASSES,
    )


def separable(num_images: int = 200, *, seed: int = 0, spread: float = 0.05) -> Features:
    """Return four tight groups of directions, one a class, and features that say nothing."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(num_images) % len(CLASSES))
    values = np.concatenate([np.eye(4)[labels], np.zeros((num_images, 2))], axis=1)
    return features_of(values + spread * generator.normal(size=values.shape), labels)


def meaningless(num_images: int = 400, *, seed: int = 0) -> Features:
    """Return features that have nothing to do with the labels."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(num_images, 6))
    return features_of(values, generator.integers(0, len(CLASSES), num_images))


def overlapping(num_images: int, *, seed: int) -> Features:
    """Return four groups that run into each other, always in the same places."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(CLASSES), num_images)
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), 8))
    return features_of(centres[labels] + generator.normal(size=(num_images, 8)), labels)


def pictures_of(num_images: int, *, size: int = 24, channels: int = 3, seed: int = 0) -> Pictures:
    """Return pictures of smooth random colour, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_images, channels, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    labels = np.arange(num_images) % len(CLASSES)
    return from_arrays((smooth * 255).byte(), labels, channels=channels)


@pytest.fixture
def made() -> SimpleNamespace:
    """Return the makers of this file."""
    return SimpleNamespace(
        features_of=features_of,
        separable=separable,
        meaningless=meaningless,
        overlapping=overlapping,
        pictures_of=pictures_of,
    )
