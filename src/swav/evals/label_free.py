"""What can be told of two networks without labels, on the same pictures: measures and features."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

from swav.data.eval_transform import EvalTransform, Picture
from swav.data.random import Stream
from swav.data.sources.decode import Decoded
from swav.data.sources.pictures import Pictures
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views
from swav.evals.clusters import kmeans
from swav.evals.harness.extract import network_encoder, prepared_batches
from swav.evals.part_retrieval import PartRetrievalConfig, random_parts
from swav.ops.metrics import effective_rank
from swav.ops.neighbours import nearest, shared_neighbours

MOST_PICTURES = 1000
FEWEST_PICTURES = 20
"""Of fewer the nearest are most of them."""
NUM_NEIGHBOURS = 10
KMEANS_SEEDS = (0, 1)
KMEANS_RESTARTS = 3
MILD = AugmentConfig(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, grey=0.0, blur=0.0)
MILD_SCALE = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is told of one network; more is better, of each alone."""

    effective_rank: float
    """Directions that the features use."""
    agreement: float
    """Share of a picture's nearest that are also those of a mild random view of it."""
    stability: float
    """Adjusted Rand index of k-means of two seeds."""
    part_retrieval: float
    """Share of the pictures that are found, first among all, from a part of them."""


class Told(NamedTuple):
    """Features of pictures, of a mild view and of a part of each, in the same order."""

    whole: Float[Tensor, "images features"]
    view: Float[Tensor, "images features"]
    part: Float[Tensor, "images features"]


def some(pictures: Pictures, most: int = MOST_PICTURES) -> Pictures:
    """Return at most so many pictures, evenly through the set: the same for every network."""
    rows = np.linspace(0, len(pictures) - 1, min(most, len(pictures))).round().astype(np.int64)
    return pictures.subset(rows)


def encoded(
    network: nn.Module,
    transform: EvalTransform,
    pictures: Pictures,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Told:
    """Return the features of every readable picture, a view and a part of it.

    Views and parts depend on the positions of the pictures alone, so every network is shown the
    same ones, each at its own size.
    """
    encoder = network_encoder(network, transform, device=device)
    size = transform.input_size[1:]
    parts = PartRetrievalConfig()

    def prepare(indices: list[int], batch: list[Picture]) -> tuple[Tensor, ...]:
        shown = random_parts(batch, indices, parts)
        return encoder.prepare(batch), mild_views(batch, indices, size), encoder.prepare(shown)

    kinds: Iterator[tuple[Tensor, ...]] = (
        tuple(encoder.encode(kind) for kind in prepared)
        for _, prepared in prepared_batches(pictures, prepare, workers=workers)
    )
    return Told(*(torch.cat(kind) for kind in zip(*kinds, strict=True)))


def mild_views(pictures: list[Picture], indices: list[int], size: tuple[int, int]) -> Tensor:
    """Return a view of each picture, as bytes: half of it at least, its colours hardly changed."""
    group = CropGroup(count=1, size=size, scale=MILD_SCALE, augment=MILD)
    whole = PictureBatch(
        [Decoded(picture, (picture.shape[1], picture.shape[2])) for picture in pictures]
    )
    made = make_byte_views(
        whole, np.array(indices), ViewsConfig(groups=(group,)), seed=0, epoch=Stream.LABEL_FREE
    )
    return made.views[0]


def measures(told: Told) -> Measures:
    """Return all measures of one network."""
    return Measures(
        effective_rank=effective_rank(told.whole),
        agreement=agreement_under_views(told.whole, told.view),
        stability=stability_of_clusters(told.whole, num_clusters(len(told.whole))),
        part_retrieval=found_by_part(told.whole, told.part),
    )


def agreement_under_views(
    whole: Float[Tensor, "images features"], view: Float[Tensor, "images features"]
) -> float:
    """Return the share of each picture's nearest that stay so when a view of it is looked up.

    The picture itself is not among its nearest, for finding it again is another question.
    """
    before, after = (
        nearest(queries, whole, num_neighbours=NUM_NEIGHBOURS, leave_one_out=True).indices
        for queries in (whole, view)
    )
    return shared_neighbours(before, after)


def overlap(first: Float[Tensor, "images _"], second: Float[Tensor, "images _"]) -> float:
    """Return the share of each picture's nearest that two networks have in common."""
    return shared_neighbours(
        *(
            nearest(rows, rows, num_neighbours=NUM_NEIGHBOURS, leave_one_out=True).indices
            for rows in (first, second)
        )
    )


def num_clusters(num_images: int) -> int:
    """Return the root of half the number of pictures, from 2 to 100."""
    return min(100, max(2, round(math.sqrt(num_images / 2))))


def stability_of_clusters(features: Float[Tensor, "images features"], number: int) -> float:
    """Return the adjusted Rand index of k-means of two seeds, 0 where all features are alike."""
    # more clusters than different rows cannot be made
    number = min(number, len(torch.unique(features, dim=0)))
    if number < 2:
        return 0.0
    first, second = (
        kmeans(features, number, restarts=KMEANS_RESTARTS, seed=seed).labels_
        for seed in KMEANS_SEEDS
    )
    return float(adjusted_rand_score(first, second))


def found_by_part(
    whole: Float[Tensor, "images features"], part: Float[Tensor, "images features"]
) -> float:
    """Return the share of the parts whose nearest picture is the one that they are of."""
    found = nearest(part, whole, num_neighbours=1).indices[:, 0]
    return float((found == torch.arange(len(whole))).float().mean())
