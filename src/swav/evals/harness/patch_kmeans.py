"""Patch k-means fitted on pictures: a baseline of 2011 that small trainings often do not reach."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from swav.data.random import Stream, uniforms
from swav.data.sources.pictures import Pictures
from swav.evals.harness.extract import PIXELS_SIZE, Encoder, encode_all, resized, standardised
from swav.ops.patch_kmeans import PATCH_SIDE, kmeans, patches_of, triangle_features, zca

NUM_FILTERS = 200
MAX_FILTERS = 10_000
"""So many patches are there at least to start from, and the paper ends at 4,000."""
MAX_PICTURES = 10_000
"""That it is fitted on, drawn by seed."""
NUM_PATCHES = 100_000
MAX_PER_PICTURE = 50
"""Patches of one picture overlap: more of them say little and cost as much."""
MIN_PER_FILTER = 10
MAX_STANDARDISED_ON = 1000
"""Pictures; mean and deviation of a feature need few."""


def patch_kmeans_encoder(
    fit: Pictures, *, num_filters: int = NUM_FILTERS, seed: int = 0, workers: int = 0
) -> Encoder:
    """Return what makes features of pictures by k-means on patches of ``fit``.

    Every picture is resized to 32 x 32. The four numbers of each filter are standardised over
    pictures of ``fit``, as the paper does before its classifier.

    Raises:
        ValueError: if not one picture can be read.
    """
    rows = _drawn(len(fit), MAX_PICTURES, seed=seed, view=0)
    prepare = partial(resized, size=PIXELS_SIZE)
    flat = Encoder(prepare, lambda batch: batch)
    pictures = _bytes(encode_all(flat, fit.subset(rows), workers=workers).values)
    patches = _drawn_patches(pictures, num_filters, seed=seed)
    whitening = zca(patches)
    white = whitening(patches)
    start = white[torch.from_numpy(_drawn(len(white), num_filters, seed=seed, view=2))]
    centroids = kmeans(white, start)

    def features(batch: Tensor) -> Float[Tensor, "batch features"]:
        return triangle_features(_bytes(batch), whitening, centroids)

    some = _drawn(len(pictures), MAX_STANDARDISED_ON, seed=seed, view=3)
    seen = triangle_features(pictures[torch.from_numpy(some)], whitening, centroids)
    return Encoder(prepare, standardised(features, seen))


def _drawn(number: int, most: int, *, seed: int, view: int) -> Int64[np.ndarray, " chosen"]:
    """Return at most ``most`` positions of ``number``, in order; all if there are few enough."""
    draws = uniforms(
        seed=seed, epoch=Stream.PATCH_KMEANS, indices=np.arange(number), view=view, num_draws=1
    )
    return np.sort(draws[:, 0].argsort(kind="stable")[:most])


def _drawn_patches(
    pictures: Float[Tensor, "images channels height width"], num_filters: int, *, seed: int
) -> Float[Tensor, "rows values"]:
    """Return patches from random places, as many of each picture."""
    number = len(pictures)
    per_picture = max(
        min(-(-NUM_PATCHES // number), MAX_PER_PICTURE), -(-MIN_PER_FILTER * num_filters // number)
    )
    draws = uniforms(
        seed=seed,
        epoch=Stream.PATCH_KMEANS,
        indices=np.arange(number),
        view=1,
        num_draws=2 * per_picture,
    )
    side = pictures.shape[-1] - PATCH_SIDE + 1
    tops, lefts = torch.from_numpy((draws * side).astype(np.int64)).chunk(2, dim=1)
    windows = pictures.unfold(2, PATCH_SIDE, 1).unfold(3, PATCH_SIDE, 1)
    cut = windows[torch.arange(number)[:, None], :, tops, lefts]
    return patches_of(cut.flatten(0, 1)).flatten(0, 1)


def _bytes(values: Float[Tensor, "batch _"]) -> Float[Tensor, "batch channels height width"]:
    """Return flat pictures in [0, 1] as what they were, with values 0 to 255."""
    return values.mul(255).view(len(values), -1, PIXELS_SIZE, PIXELS_SIZE)
