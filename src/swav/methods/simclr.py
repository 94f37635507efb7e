"""SimCLR: tell the views of a picture from the views of all others.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
arXiv 2002.05709, and its loss for any number of views from Caron et al., NeurIPS 2020, arXiv
2006.09882, appendix A.8.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from swav.data.batch import Batch
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.heads import HeadConfig, embed_views
from swav.ops.losses import nt_xent


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig(ObjectiveConfig):
    """SimCLR (Chen et al., 2020): contrast the views of a picture with all others of the batch."""

    name: ClassVar[str] = "simclr"
    title: ClassVar[str] = "SimCLR"
    has_negatives: ClassVar[bool] = True
    needs_whole_batch: ClassVar[str] = (
        "SimCLR contrasts every view with all pictures of the batch, so parts of it are less"
    )

    head: HeadConfig = HeadConfig()
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} must be positive: try 0.1 to 0.5")

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "SimCLR":
        """Return the objective around ``backbone``."""
        return SimCLR(self, backbone, facts)


class SimCLR(Objective):
    """Contrast within the batch of all ranks."""

    def __init__(self, config: SimCLRConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = backbone
        self.projector = config.head.build(facts.feature_dim)

    @property
    def encoder(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the loss over all pairs of views, targets or not."""
        embeddings = F.normalize(embed_views(self.backbone, self.projector, batch.views), dim=2)
        return StepOutput(nt_xent(embeddings, temperature=self.config.temperature))
