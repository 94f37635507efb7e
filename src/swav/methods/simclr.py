"""SimCLR: tell the views of a picture from the views of all others.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
arXiv 2002.05709, and its loss for any number of views from Caron et al., NeurIPS 2020, arXiv
2006.09882, appendix A.8.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.engine.objective import Clock, StepOutput, TrainingFacts
from swav.methods.projected import Projected, ProjectedConfig
from swav.ops.losses import nt_xent


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig(ProjectedConfig):
    """SimCLR (Chen et al., 2020): contrast the views of a picture with all others of the batch."""

    name: ClassVar[str] = "simclr"
    title: ClassVar[str] = "SimCLR"
    has_negatives: ClassVar[bool] = True
    needs_whole_batch: ClassVar[str] = (
        "SimCLR contrasts every view with all pictures of the batch, so parts of it are less"
    )

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} must be positive: try 0.1 to 0.5")
        check_ranges(self, temperature="(0, inf)")

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "SimCLR":
        """Return the objective around ``backbone``."""
        return SimCLR(self, backbone, facts)


class SimCLR(Projected[SimCLRConfig]):
    """Contrast within the batch of all ranks."""

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the loss over all pairs of views, targets or not."""
        # the loss gathers the other ranks' embeddings: SimCLR's negatives are the global batch
        return StepOutput(nt_xent(self.embed(batch), temperature=self.config.temperature))
