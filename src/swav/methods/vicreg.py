"""VICReg: variance, invariance and covariance of the embeddings, each kept where it should be.

Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning", ICLR 2022, arXiv 2105.04906. Views of a picture are brought together (invariance) while
every dimension keeps a standard deviation of at least one over the batch (variance) and no two
dimensions vary together (covariance).

The terms are weighed as in the authors' released code, with which the weights were published: the
squared distance is a mean over dimensions, the variance a mean over the two views, the covariance
a sum over them. With more views, the invariance is the mean over all pairs with a target view, and
variance and covariance are those of the mean view.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from swav import distributed
from swav.config import check_ranges
from swav.data.batch import Batch
from swav.engine.objective import Clock, StepOutput, TrainingFacts
from swav.methods.projected import Projected, ProjectedConfig
from swav.nn.heads import EXPANDER, HeadConfig, embed_views
from swav.ops.losses import covariance_penalty, unordered_pairs, variance_hinge


@dataclass(frozen=True, kw_only=True)
class VICRegConfig(ProjectedConfig):
    """VICReg (Bardes et al., 2022): variance, invariance and covariance of the embeddings."""

    name: ClassVar[str] = "vicreg"
    title: ClassVar[str] = "VICReg"
    needs_whole_batch: ClassVar[str] = (
        "VICReg takes variances and covariances over the whole batch, and parts of it covary more"
    )

    head: HeadConfig = EXPANDER
    batchnorm_per_view: bool = True
    """Pass each view on its own, as the authors' code does, so that BatchNorm sees one view at a
    time; without, views of one size pass the network together and all views the head."""
    invariance_weight: float = 25.0
    variance_weight: float = 25.0
    covariance_weight: float = 1.0

    def __post_init__(self) -> None:
        weights = (self.invariance_weight, self.variance_weight, self.covariance_weight)
        if min(weights) < 0:
            raise ValueError(
                f"weights {weights} of invariance, variance and covariance must not be negative: "
                "the paper has 25, 25, 1"
            )
        check_ranges(
            self,
            invariance_weight="[0, inf)",
            variance_weight="[0, inf)",
            covariance_weight="[0, inf)",
        )

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "VICReg":
        """Return the objective around ``backbone``."""
        return VICReg(self, backbone, facts)


class VICReg(Projected[VICRegConfig]):
    """Redundancy reduction without comparing pictures."""

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the weighted sum of the three terms, the same on every rank."""
        config = self.config
        per_view = self.config.batchnorm_per_view
        local = embed_views(self.backbone, self.projector, batch.views, per_view=per_view)
        # with gradient: variances are over the batch of all ranks, and every row takes part
        views = distributed.all_gather_with_grad(local).transpose(0, 1).flatten(1, 2)
        # the distance is symmetric, so each pair counts once
        pairs = unordered_pairs(batch.num_targets, len(views))
        invariance = torch.stack([F.mse_loss(views[one], views[other]) for one, other in pairs])
        variance = torch.stack([variance_hinge(view) for view in views])
        covariance = torch.stack([covariance_penalty(view) for view in views])
        # 2 x: the authors' code adds up the covariance of its two views
        terms = (invariance.mean(), variance.mean(), 2 * covariance.mean())
        weights = (config.invariance_weight, config.variance_weight, config.covariance_weight)
        loss = torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)])
        names = ("invariance", "variance", "covariance")
        metrics = {name: term.detach().cpu() for name, term in zip(names, terms, strict=True)}
        return StepOutput(loss.sum(), metrics)
