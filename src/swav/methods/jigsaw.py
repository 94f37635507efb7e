"""Jigsaw: tell in which order the tiles of a picture were put.

Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
ECCV 2016, arXiv 1603.09246. A view is cut into 3x3 tiles, a random part of each cell, which are
put into one of a set of orders that are easy to tell apart. One network sees each tile alone;
only a classifier on top of all nine sees them together and has to name the order.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.data.views.pretext_tasks import NUM_TILES, JigsawViews
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.backbones import encode_views
from swav.nn.heads import hidden_layer


@dataclass(frozen=True, kw_only=True)
class JigsawConfig(ObjectiveConfig):
    """Jigsaw (Noroozi & Favaro, 2016): which order the 3x3 tiles of each view were put in."""

    name: ClassVar[str] = "jigsaw"
    title: ClassVar[str] = "jigsaw puzzles"

    num_permutations: int = 1000
    """Orders to tell apart, of maximal Hamming distance: more are harder, too many alike."""
    permutation_seed: int = 0
    """Of the first of them; the others follow from it."""
    gap: float = 0.25
    """Share of each side of a cell that its tile leaves out."""
    tile_size: int | None = None
    """Enlarge or reduce tiles to this many pixels; by default they stay as they are cut."""
    tile_dim: int = 1000
    """Width of the layer on each tile, before the nine are joined."""
    batchnorm: bool = True
    """BatchNorm in the layer on each tile."""

    def __post_init__(self) -> None:
        if not 0 <= self.gap <= 0.9:
            raise ValueError(f"gap {self.gap} must be 0 to 0.9: the paper has 0.15")
        if self.tile_dim < 1:
            raise ValueError(f"tile_dim {self.tile_dim} must be at least 1")
        check_ranges(
            self,
            num_permutations="[2, 362880]",
            permutation_seed="[0, 9e18]",
            tile_size="[1, 10000]",
            tile_dim="[1, 1e6]",
        )

    @property
    def pretext(self) -> JigsawViews:
        """What the task makes of the views."""
        return JigsawViews(
            num_permutations=self.num_permutations,
            permutation_seed=self.permutation_seed,
            gap=self.gap,
            tile_size=self.tile_size,
        )

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "Jigsaw":
        """Return the objective around ``backbone``."""
        return Jigsaw(self, backbone, facts)


class Jigsaw(Objective):
    """Classification of the order of the tiles (the context-free network)."""

    def __init__(self, config: JigsawConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.backbone = backbone
        self.tile_head = nn.Sequential(
            *hidden_layer(facts.feature_dim, config.tile_dim, batchnorm=config.batchnorm)
        )
        self.classifier = nn.Linear(NUM_TILES * config.tile_dim, config.num_permutations)

    @property
    def encoder(self) -> nn.Module:
        """The backbone, which sees whole pictures once it is trained."""
        return self.backbone

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the cross-entropy of the order, the mean over views and pictures."""
        tiles = self.tile_head(torch.cat(encode_views(self.backbone, batch.views)))
        # cross-entropy of 2,000 classes in half precision loses the small differences
        logits = self.classifier(side_by_side(tiles, len(batch.indices))).float()
        answers = batch.answers.T.flatten()
        accuracy = (logits.argmax(dim=1) == answers).float().mean()
        return StepOutput(F.cross_entropy(logits, answers), {"pretext_accuracy": accuracy.cpu()})


def side_by_side(tiles: Float[Tensor, "_ features"], batch: int) -> Float[Tensor, "_ joined"]:
    """Return a row for each view of each picture: the features of its nine tiles in their order.

    ``tiles`` are view after view, tile after tile, ``batch`` pictures each.
    """
    by_view = tiles.reshape(-1, NUM_TILES, batch, tiles.shape[1])
    return by_view.transpose(1, 2).reshape(-1, NUM_TILES * tiles.shape[1])
