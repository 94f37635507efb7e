"""BYOL: predict what a slow copy of the network makes of another view; no negatives.

Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", NeurIPS
2020, arXiv 2006.07733. An online network with a predictor learns to predict the projection of a
target network, which follows the online one slowly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.engine.objective import Clock, StepOutput, TrainingFacts
from swav.methods.projected import Projected, ProjectedConfig
from swav.nn.ema import MovingAverage
from swav.nn.heads import HeadConfig, embed_views
from swav.ops.losses import bootstrap_distance, swapped_pairs


@dataclass(frozen=True, kw_only=True)
class BYOLConfig(ProjectedConfig):
    """BYOL (Grill et al., 2020): predict the projections of a slowly moving target network."""

    name: ClassVar[str] = "byol"
    title: ClassVar[str] = "BYOL"

    head: HeadConfig = HeadConfig(hidden_dim=4096, embed_dim=256)
    """Of projector and predictor."""
    batchnorm_per_view: bool = True
    """Pass each view on its own, as the authors' code does, so that BatchNorm sees one view at a
    time; without, views of one size pass the network together and all views the head."""
    momentum: float = 0.996
    """Share of the old weights in the target network at the first step; it rises to 1."""
    # 20 in the CPU recipe: kNN 36.0 against 32.3 with 1 (docs/log.md)
    predictor_rate: float = 1.0
    """Learning rate of the predictor, in multiples of the network's. A short training needs a
    predictor that keeps up: one that lags lets directions of the embedding die out (Tian et al.,
    "Understanding Self-Supervised Learning Dynamics without Contrastive Pairs", ICML 2021, arXiv
    2102.06810)."""

    def __post_init__(self) -> None:
        if self.head.hidden_dim < 1:
            raise ValueError("head.hidden_dim 0 leaves nothing to predict: BYOL has 4096")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum {self.momentum} must be in [0, 1]: BYOL has 0.996")
        if not self.predictor_rate > 0:
            raise ValueError(f"predictor_rate {self.predictor_rate} must be above 0: BYOL has 1")
        check_ranges(self, predictor_rate="(0, inf)")

    def momentum_at(self, clock: Clock) -> float:
        """Return the momentum after the step that started at ``clock`` (BYOL, sec. 3.2)."""
        # the step that started at 0 has the lowest momentum: the target follows fast at first
        remaining = (math.cos(math.pi * clock.step / clock.total_steps) + 1) / 2
        # 1 at the end: the target stands still when the run does
        return 1 - (1 - self.momentum) * remaining

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "BYOL":
        """Return the objective around ``backbone``."""
        return BYOL(self, backbone, facts)


class BYOL(Projected[BYOLConfig]):
    """Prediction of a target network's projections."""

    def __init__(self, config: BYOLConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config, backbone, facts)
        self.predictor = config.head.build(config.head.embed_dim)
        self.target_backbone = MovingAverage(self.backbone)
        self.target_projector = MovingAverage(self.projector)

    @property
    def lr_multipliers(self) -> Mapping[str, float]:
        """The predictor's."""
        return {"predictor": self.config.predictor_rate}

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the mean distance of each view's prediction from the other target views."""
        per_view = self.config.batchnorm_per_view
        # the target network gets no gradient (sec. 3.1)
        with torch.no_grad():
            projections = embed_views(
                self.target_backbone.average,
                self.target_projector.average,
                batch.views[: batch.num_targets],
                per_view=per_view,
            )
        first = 1 if batch.num_targets == 1 else 0  # a lone target view predicts nothing
        # one module, so that per-view passes hold for projector and predictor alike
        online = nn.Sequential(self.projector, self.predictor)
        predictions = embed_views(self.backbone, online, batch.views[first:], per_view=per_view)
        losses = [
            bootstrap_distance(predictions[view - first], projections[target])
            for target, view in swapped_pairs(batch.num_targets, len(batch.views))
        ]
        return StepOutput(torch.stack(losses).mean())

    def after_step(self, clock: Clock) -> None:
        """Move the target network towards the online one."""
        momentum = self.config.momentum_at(clock)
        # after the optimiser: the target follows the weights that the step has made (sec. 3.1)
        self.target_backbone.update(self.backbone, momentum)
        self.target_projector.update(self.projector, momentum)
