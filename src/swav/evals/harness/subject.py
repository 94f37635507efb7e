"""What is evaluated: a network, or what needs none, on pictures to fit on and to score."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.pictures import Pictures
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.extract import (
    Encoder,
    Features,
    Rows,
    encode_rows,
    features_of,
    network_encoder,
    pixel_encoder,
)
from swav.evals.harness.splits import spread
from swav.ops.kmeans import tightest_centres


class Shown(NamedTuple):
    """A network and how it is shown pictures."""

    network: nn.Module
    transform: EvalTransform


class Clusters(ABC):
    """The clusters of the method that trained a network."""

    @abstractmethod
    def probabilities(
        self, features: Float[Tensor, "images features"]
    ) -> Float[Tensor, "images prototypes"]:
        """Return the probability of each cluster, picture by picture the same."""

    @abstractmethod
    def embeddings(
        self, features: Float[Tensor, "images features"]
    ) -> Float[Tensor, "images embed"]:
        """Return unit vectors in the space of the prototypes, picture by picture the same."""

    @abstractmethod
    def prototypes(self) -> Float[Tensor, "prototypes embed"] | None:
        """Return the directions that stand for the clusters, if the method has such."""


ROWS = 16_384
"""Pictures whose probabilities of all clusters are in memory at a time."""
FIT_ON = 100_000
"""Pictures that as many clusters as wanted are fitted on, evenly through the set: more change the
centres little, and a million embeddings need not fit."""

FeatureCache = Callable[["Subject", Pictures, str, Callable[[], Rows]], Rows]
"""Return the rows of a name: read where they are kept, computed otherwise."""


def compute_rows(
    subject: "Subject", pictures: Pictures, name: str, compute: Callable[[], Rows]
) -> Rows:
    """Return the rows as they are computed."""
    del subject, pictures, name
    return compute()


@runtime_checkable
class FitEncoder(Protocol):
    """What makes features without a network: fitted on pictures, the same each time."""

    def __call__(self, fit: Pictures, /, *, workers: int) -> Encoder:
        """Return the encoder of pictures like those of ``fit``."""


@dataclass(frozen=True)
class Subject:
    """A network or what needs none, and the pictures; features are extracted when first asked for.

    An evaluation that needs pictures takes ``data`` and ``encode``; one that trains the network
    takes a copy of ``backbone``, which is never changed, and ``transform``.
    """

    data: EvalData
    backbone: nn.Module | None = None
    """None for features without a network, which ``encoder_of`` makes."""
    transform: EvalTransform | None = None
    """From decoded pictures to the input of ``backbone``; None without it."""
    clusters: Clusters | None = None
    """Of the method; None if it has none, and for a network that is a baseline."""
    cache: FeatureCache = compute_rows
    encoder_of: FitEncoder = pixel_encoder
    """Without a backbone: raw pixels, or another baseline; fitted on the pictures to learn from."""
    workers: int = 0
    """Processes that read pictures and make views; no number depends on it."""

    def __post_init__(self) -> None:
        assert (self.backbone is None) == (self.transform is None)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        if self.backbone is None:
            return torch.device("cpu")
        return next(self.backbone.parameters()).device

    @cached_property
    def train_features(self) -> Features:
        """Features to learn from."""
        return self._output(self.data.train)

    @cached_property
    def test_features(self) -> Features | None:
        """Features to score; None where one set plays both parts."""
        return None if self.data.test is None else self._output(self.data.test)

    @property
    def scored_features(self) -> Features:
        """Features of the pictures that are scored."""
        return self.train_features if self.test_features is None else self.test_features

    def _output(self, pictures: Pictures) -> Features:
        prepare, encode = self.encode.prepare, self.encode.encode

        def compute() -> Rows:
            return encode_rows(
                prepare, lambda batch: [encode(batch)], pictures, workers=self.workers
            )

        (values,), kept = self.cache(self, pictures, "output", compute)
        return features_of(values, pictures, kept)

    @cached_property
    def encode(self) -> Encoder:
        """From decoded pictures to features, the network in evaluation mode."""
        return self._encoder(self.transform)

    @cached_property
    def encode_views(self) -> Encoder:
        """The same for views that have the input size already: nothing is cropped off them."""
        return self._encoder(self.transform and replace(self.transform, crop_pct=1.0))

    def _encoder(self, transform: EvalTransform | None) -> Encoder:
        if self.backbone is None or transform is None:
            return self._fitted
        return network_encoder(self.backbone, transform, device=self.device)

    @cached_property
    def _fitted(self) -> Encoder:
        return self.encoder_of(self.data.train, workers=self.workers)


def assignment_of(
    clusters: Clusters, features: Float[Tensor, "images features"]
) -> Int64[Tensor, " images"]:
    """Return the most probable cluster of every picture."""
    shares = torch.split(features, ROWS)
    return torch.cat([clusters.probabilities(share).argmax(dim=1) for share in shares])


def centres_of(
    clusters: Clusters,
    features: Float[Tensor, "images features"],
    number: int,
    *,
    seed: int = 0,
) -> Float[Tensor, "prototypes embed"]:
    """Return as many clusters of a method as wanted: unit centres where its prototypes lie.

    They are those of k-means on the unit embeddings of at most ``FIT_ON`` of the pictures.
    """
    some = features[torch.from_numpy(spread(len(features), FIT_ON))]
    embeddings, prototypes = clusters.embeddings(some), clusters.prototypes()
    return tightest_centres(embeddings, number, prototypes=prototypes, seed=seed)


def nearest_centre(
    clusters: Clusters,
    features: Float[Tensor, "images features"],
    centres: Float[Tensor, "prototypes embed"],
) -> Int64[Tensor, " images"]:
    """Return the centre of the largest cosine of every picture."""
    shares = torch.split(features, ROWS)
    return torch.cat([(clusters.embeddings(share) @ centres.T).argmax(dim=1) for share in shares])
