"""A backbone and a projection head: what most methods are built around."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from swav.data.batch import AnyBatch
from swav.engine.objective import Objective, ObjectiveConfig, TrainingFacts
from swav.nn.heads import HeadConfig, unit_embeddings


@dataclass(frozen=True, kw_only=True)
class ProjectedConfig(ObjectiveConfig):
    """The settings of a method with a projection head."""

    head: HeadConfig = HeadConfig()


Config = TypeVar("Config", bound=ProjectedConfig)


class Projected(Objective, Generic[Config]):
    """A loss over projections of the backbone's features; a method adds the loss."""

    def __init__(self, config: Config, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = backbone
        self.projector = config.head.build(facts.feature_dim)

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is trained; a teacher only helps it."""
        return self.backbone

    def embed(self, batch: AnyBatch) -> Float[Tensor, "views batch embed"]:
        """Return unit embeddings of all views."""
        return unit_embeddings(self.projector, batch.encode(self.backbone))
