"""Relative position: tell on which side of a patch another one lay.

Doersch, Gupta and Efros, "Unsupervised Visual Representation Learning by Context Prediction",
ICCV 2015, arXiv 1505.05192. Of each view the network sees the middle patch and one of its eight
neighbours, each alone; a classifier on both has to say which neighbour it is. Gap, jitter and
dropped colours keep it from answering by lines that go on or by the bend of the lens.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.data.views.pretext_tasks import NEIGHBOURS, PatchPairs
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.backbones import encode_views
from swav.nn.heads import hidden_layer


@dataclass(frozen=True, kw_only=True)
class RelativeConfig(ObjectiveConfig):
    """Relative position (Doersch et al., 2015): which of eight neighbours a patch is."""

    name: ClassVar[str] = "relative"
    title: ClassVar[str] = "relative position"

    gap: float = 1 / 3
    """Share of each side of a cell of the 3x3 grid that its patch leaves out."""
    jitter: float = 0.3
    """Share of the gap that a patch moves in."""
    colour: Literal["drop", "project", "keep"] = "drop"
    """Against bent colours: two of three become noise, or the green-magenta axis is taken out."""
    tile_size: int | None = None
    """Enlarge or reduce patches to this many pixels; by default they stay as they are cut."""
    hidden_dim: int = 4096
    """Width of the layer on both patches together."""
    batchnorm: bool = True
    """BatchNorm in that layer."""
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.gap <= 0.9:
            raise ValueError(f"gap {self.gap} must be 0 to 0.9: the paper has 1/3")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter {self.jitter} is a share of the gap: give 0 to 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} must be at least 0 and below 1")
        check_ranges(self, tile_size="[1, 10000]", hidden_dim="[1, 1e6]")

    @property
    def pretext(self) -> PatchPairs:
        """What the task makes of the views."""
        return PatchPairs(
            gap=self.gap, jitter=self.jitter, colour=self.colour, tile_size=self.tile_size
        )

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "Relative":
        """Return the objective around ``backbone``."""
        return Relative(self, backbone, facts)


class Relative(Objective):
    """Classification of the position of a patch against another."""

    def __init__(self, config: RelativeConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.backbone = backbone
        self.classifier = nn.Sequential(
            *hidden_layer(2 * facts.feature_dim, config.hidden_dim, batchnorm=config.batchnorm),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, len(NEIGHBOURS)),
        )

    @property
    def encoder(self) -> nn.Module:
        """The backbone, which sees whole pictures once it is trained."""
        return self.backbone

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the cross-entropy of the position, the mean over views and pictures."""
        features = encode_views(self.backbone, batch.views)
        middle, neighbour = torch.cat(features[0::2]), torch.cat(features[1::2])
        # the order of the two tells above from below
        logits = self.classifier(torch.cat([middle, neighbour], dim=1)).float()
        answers = batch.answers.T.flatten()
        accuracy = (logits.argmax(dim=1) == answers).float().mean()
        return StepOutput(F.cross_entropy(logits, answers), {"pretext_accuracy": accuracy.cpu()})
