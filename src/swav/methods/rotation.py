"""Rotation: tell by how much a picture was turned.

Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by Predicting Image
Rotations", ICLR 2018, arXiv 1803.07728. Every view is turned by 0, 90, 180 or 270 degrees, and a
linear classifier on the backbone has to say which. That needs to see what is in the picture.

Of the paper's four copies of a picture a step shows as many as there are views, each turned by an
angle of its own.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from swav.data.batch import Batch
from swav.data.views.pretext_tasks import RotatedViews
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.backbones import encode_views

NUM_ANGLES = 4


@dataclass(frozen=True, kw_only=True)
class RotationConfig(ObjectiveConfig):
    """Rotation (Gidaris et al., 2018): which of four angles each view was turned by."""

    name: ClassVar[str] = "rotation"
    title: ClassVar[str] = "rotation prediction"

    @property
    def pretext(self) -> RotatedViews:
        """What the task makes of the views."""
        return RotatedViews()

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "Rotation":
        """Return the objective around ``backbone``."""
        return Rotation(self, backbone, facts)


class Rotation(Objective):
    """Classification of the angle of every view."""

    def __init__(self, config: RotationConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.backbone = backbone
        # linear, as the benchmark has it whose numbers the recipe names (VISSL)
        self.classifier = nn.Linear(facts.feature_dim, NUM_ANGLES)

    @property
    def encoder(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the cross-entropy of the angle (eq. 2-3), the mean over views and pictures."""
        features = torch.cat(encode_views(self.backbone, batch.views))
        logits = self.classifier(features).float()
        answers = batch.answers.T.flatten()
        accuracy = (logits.argmax(dim=1) == answers).float().mean()
        return StepOutput(F.cross_entropy(logits, answers), {"pretext_accuracy": accuracy.cpu()})
