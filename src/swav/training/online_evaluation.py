"""Scores while a training goes on: of the same pictures and the same crops each time."""

import time
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from swav.data.eval_transform import EvalTransform
from swav.data.random import Stream
from swav.data.sources.pictures import Pictures
from swav.evals import Features, KNNConfig, evaluating, knn
from swav.evals.clusters import JITTER
from swav.evals.harness.extract import BATCH_SIZE, features_of, readable_batches
from swav.evals.harness.views import draw_views
from swav.ops.metrics import alignment, effective_rank, uniformity

MOST_SCORED, MOST_VIEWED = 10_000, 1_000
MOST_BYTES = 2**28
"""Of the crops that are kept in memory between evaluations, of each kind."""
NEIGHBOURS = (10, 20)

CropBytes = UInt8[Tensor, "images channels height width"]


class PeriodicEvaluation:
    """Effective rank, alignment and uniformity of features; with labels also nearest neighbours.

    The pictures lie evenly through the set, are read and cropped at the first evaluation and
    kept, so that every later one costs forward passes alone.
    """

    def __init__(self, pictures: Pictures, transform: EvalTransform) -> None:
        self._pictures = pictures
        self._transform = transform

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return the scores of a network as it is, and what they cost as ``evaluation_seconds``."""
        started = time.monotonic()
        with evaluating(network):
            first, second = (self._encode(network, crops) for crops in self._views)
            scores = {
                "rankme": effective_rank(first),
                "alignment": alignment(first, second),
                "uniformity": uniformity(first),
            }
            if self._can_vote:
                crops, kept = self._centres
                features = features_of(self._encode(network, crops), self._scored, kept)
                scores |= _neighbours(features)
        return {**scores, "evaluation_seconds": round(time.monotonic() - started, 2)}

    def _encode(self, network: nn.Module, crops: CropBytes) -> Float[Tensor, "images features"]:
        device = next(network.parameters()).device
        with torch.no_grad():
            features = [
                network(self._transform(list(batch)).to(device)).float().cpu()
                for batch in torch.split(crops, BATCH_SIZE)
            ]
        return torch.cat(features)

    @property
    def _can_vote(self) -> bool:
        labels = self._pictures.labels
        enough = len(self._pictures) > max(NEIGHBOURS)
        return labels is not None and enough and len(np.unique(labels)) > 1

    @cached_property
    def _scored(self) -> Pictures:
        return self._some(MOST_SCORED)

    @cached_property
    def _centres(self) -> tuple[CropBytes, list[int]]:
        crops: list[Tensor] = []
        kept: list[int] = []
        for indices, batch in readable_batches(self._scored):
            crops += [self._transform.fit(picture) for picture in batch]
            kept += indices
        return torch.stack(crops), kept

    @cached_property
    def _views(self) -> tuple[CropBytes, CropBytes]:
        drawn = draw_views(
            self._some(MOST_VIEWED),
            size=self._transform.input_size[1:],
            scale=(0.3, 1.0),
            augment=JITTER,
            seed=0,
            epoch=Stream.ONLINE_EVALUATION,
        )
        first, second = zip(*drawn, strict=True)
        return torch.cat(first), torch.cat(second)

    def _some(self, most: int) -> Pictures:
        """Return as many pictures as fit in memory, at most ``most``, evenly through the set."""
        bytes_each = int(np.prod(self._transform.input_size))
        number = min(len(self._pictures), most, max(MOST_BYTES // bytes_each, 2))
        rows = np.linspace(0, len(self._pictures) - 1, number).round().astype(np.int64)
        return self._pictures.subset(rows)


def _neighbours(features: Features) -> dict[str, float]:
    if len(features.names) <= max(NEIGHBOURS):
        return {}
    result = knn.run(KNNConfig(k=NEIGHBOURS), features)
    return {f"knn_{name}": value for name, value in result.metrics.items()}
