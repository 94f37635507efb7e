"""Barlow Twins: make two views agree in every dimension, and the dimensions differ.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021, arXiv
2103.03230. The correlation matrix of the embeddings of two views over the batch is brought close
to the identity. With more views, the mean over all pairs with a target view.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from swav import distributed
from swav.config import check_ranges
from swav.data.batch import Batch
from swav.engine.objective import Clock, StepOutput, TrainingFacts
from swav.methods.projected import Projected, ProjectedConfig
from swav.nn.heads import EXPANDER, HeadConfig, embed_views
from swav.ops.losses import cross_correlation, unordered_pairs


@dataclass(frozen=True, kw_only=True)
class BarlowConfig(ProjectedConfig):
    """Barlow Twins (Zbontar et al., 2021): a correlation matrix close to the identity."""

    name: ClassVar[str] = "barlow"
    title: ClassVar[str] = "Barlow Twins"
    needs_whole_batch: ClassVar[str] = (
        "Barlow Twins correlates dimensions over the whole batch, and parts of it correlate more"
    )

    head: HeadConfig = EXPANDER
    batchnorm_per_view: bool = True
    """Pass each view on its own, as the authors' code does, so that BatchNorm sees one view at a
    time; without, views of one size pass the network together and all views the head."""
    # 0.0051 is the default of the authors' code
    redundancy_weight: float = 0.0051
    """Of correlations between different dimensions (lambda)."""

    def __post_init__(self) -> None:
        if self.redundancy_weight < 0:
            raise ValueError(
                f"redundancy_weight {self.redundancy_weight} must not be negative: try 0.0051"
            )
        check_ranges(self, redundancy_weight="[0, inf)")

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "Barlow":
        """Return the objective around ``backbone``."""
        return Barlow(self, backbone, facts)


class Barlow(Projected[BarlowConfig]):
    """Redundancy reduction by the cross-correlation of views."""

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the mean loss over pairs of views, the same on every rank."""
        per_view = self.config.batchnorm_per_view
        local = embed_views(self.backbone, self.projector, batch.views, per_view=per_view)
        # with gradient: correlations are over the batch of all ranks, and every row takes part
        embeddings = distributed.all_gather_with_grad(local).transpose(0, 1).flatten(1, 2)
        losses = [
            cross_correlation(
                embeddings[one],
                embeddings[other],
                redundancy_weight=self.config.redundancy_weight,
            )
            # the loss is symmetric (its matrix is transposed), so each pair counts once
            for one, other in unordered_pairs(batch.num_targets, len(batch.views))
        ]
        return StepOutput(torch.stack(losses).mean())
