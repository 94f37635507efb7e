"""SeLa-v2: share all pictures equally between clusters between epochs, and predict them.

Asano et al., "Self-labelling via simultaneous clustering and representation learning", ICLR 2020,
arXiv 1911.05371, with the improvements of Caron et al., NeurIPS 2020, arXiv 2006.09882, appendix
D: SwAV's views, head, temperature and schedule. At the start of each epoch one optimal transport
over all pictures gives every picture one cluster, all clusters equal shares; unlike the centroids
of DeepCluster-v2 the prototypes are learnt by the optimiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor, nn

from swav.config import check_ranges
from swav.engine.divergence import FEWER_PROTOTYPES, SHARPER_CODES
from swav.engine.objective import Clock, TrainingFacts
from swav.methods.cluster_prediction import ClusterPrediction, ClusterPredictionConfig
from swav.ops.assign import sinkhorn


@dataclass(frozen=True, kw_only=True)
class SeLaConfig(ClusterPredictionConfig):
    """SeLa-v2 (Asano et al., 2020; Caron et al., 2020): Sinkhorn over all pictures each epoch."""

    name: ClassVar[str] = "sela"
    title: ClassVar[str] = "SeLa-v2"
    collapse_remedies: ClassVar[tuple[str, ...]] = (SHARPER_CODES, FEWER_PROTOTYPES)

    epsilon: float = 0.05
    """Entropy of the assignment before it is made hard (not published for v2: SwAV's)."""
    # more than SwAV's three: this is one assignment an epoch, so it can afford to converge
    iterations: int = 10
    """Rounds of Sinkhorn-Knopp over all pictures (not published for v2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise ValueError(f"epsilon {self.epsilon} must be positive: SwAV uses 0.05")
        check_ranges(self, epsilon="(0, inf)", iterations="[0, 1000]")

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "SeLa":
        """Return the objective around ``backbone``."""
        return SeLa(self, backbone, facts)


class SeLa(ClusterPrediction[SeLaConfig]):
    """Prediction of equal clusters, assigned once an epoch."""

    def assignments(self, _clock: Clock) -> Sequence[Int[Tensor, " rows"]]:
        """Share all pictures equally between the prototypes of each head; keep the largest code."""
        config = self.config
        # the optimiser has moved them since the last step, and scores have to be cosines
        self.prototypes.normalise()
        by_head = []
        for head, weight in enumerate(self.prototypes.parameters()):
            scores = self.clusters.rows(head) @ weight.T
            codes = sinkhorn(scores, epsilon=config.epsilon, iterations=config.iterations)
            # hard, as in both papers: one cluster is kept for each picture, not a row of K codes
            by_head.append(codes.argmax(dim=1))
        return by_head
