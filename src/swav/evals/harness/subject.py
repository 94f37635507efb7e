"""What is evaluated: a network, or raw pixels, on pictures to fit on and pictures to score."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.annotated import Annotated
from swav.data.sources.pictures import Pictures
from swav.evals.harness.extract import (
    Encoder,
    Features,
    Rows,
    encode_rows,
    features_of,
    network_encoder,
    pixel_encoder,
)


class Parts(NamedTuple):
    """What to fit on and what to score; ``score`` is None where one set plays both parts."""

    fit: Pictures
    score: Pictures | None
    fit_on: str
    score_on: str
    boxes: tuple[Annotated, Annotated] | None = None
    """The same two sets with the objects in each picture, if they are known."""

    def load(self) -> "Parts":
        """Return the same with the pictures decoded in memory, if they fit there."""
        score = None if self.score is None else self.score.load()
        parts = self._replace(fit=self.fit.load(), score=score)
        if self.boxes is None or parts.score is None:
            return parts
        fit_boxes, score_boxes = self.boxes
        return parts._replace(boxes=(fit_boxes.of(parts.fit), score_boxes.of(parts.score)))

    @property
    def scored(self) -> Pictures:
        """The pictures that are scored."""
        return self.fit if self.score is None else self.score


class Clusters(ABC):
    """The clusters of the method that trained a network."""

    @abstractmethod
    def probabilities(
        self, features: Float[Tensor, "images features"]
    ) -> Float[Tensor, "images prototypes"]:
        """Return the probability of each cluster, picture by picture the same."""

    @abstractmethod
    def prototypes(self) -> Float[Tensor, "prototypes embed"] | None:
        """Return the directions that stand for the clusters, if the method has such."""


ROWS = 16_384
"""Pictures whose probabilities of all clusters are in memory at a time."""

Recall = Callable[["Subject", Pictures, str, Callable[[], Rows]], Rows]
"""How rows that have a name are come by: computed, or read from a file that holds them."""


def compute_rows(
    subject: "Subject", pictures: Pictures, name: str, compute: Callable[[], Rows]
) -> Rows:
    """Return the rows as they are computed."""
    del subject, pictures, name
    return compute()


@dataclass(frozen=True)
class Subject:
    """A network or raw pixels, and the pictures; features are extracted when first asked for.

    An evaluation that needs pictures takes ``parts`` and ``encode``; one that trains the network
    takes a copy of ``backbone``, which is never changed, and ``transform``.
    """

    parts: Parts
    backbone: nn.Module | None = None
    """None for raw pixels."""
    transform: EvalTransform | None = None
    """From decoded pictures to the input of ``backbone``; None for raw pixels."""
    clusters: Clusters | None = None
    """Of the method; None if it has none, and for a network that is a baseline."""
    recall: Recall = compute_rows
    workers: int = 0
    """Processes that read pictures."""

    def __post_init__(self) -> None:
        assert (self.backbone is None) == (self.transform is None)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        if self.backbone is None:
            return torch.device("cpu")
        return next(self.backbone.parameters()).device

    @cached_property
    def fit(self) -> Features:
        """Features to learn from."""
        return self._output(self.parts.fit)

    @cached_property
    def score(self) -> Features | None:
        """Features to score; None where one set plays both parts."""
        return None if self.parts.score is None else self._output(self.parts.score)

    @property
    def scored(self) -> Features:
        """Features of the pictures that are scored."""
        return self.fit if self.score is None else self.score

    def _output(self, pictures: Pictures) -> Features:
        prepare, encode = self.encode.prepare, self.encode.encode

        def compute() -> Rows:
            return encode_rows(
                prepare, lambda batch: [encode(batch)], pictures, workers=self.workers
            )

        (values,), kept = self.recall(self, pictures, "output", compute)
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
            return self._pixels
        return network_encoder(self.backbone, transform, device=self.device)

    @cached_property
    def _pixels(self) -> Encoder:
        return pixel_encoder(self.parts.fit)


def assignment_of(
    clusters: Clusters, features: Float[Tensor, "images features"]
) -> Int64[Tensor, " images"]:
    """Return the most probable cluster of every picture."""
    shares = torch.split(features, ROWS)
    return torch.cat([clusters.probabilities(share).argmax(dim=1) for share in shares])
