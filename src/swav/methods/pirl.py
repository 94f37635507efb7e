"""PIRL: a picture and its jigsaw have one embedding.

Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations",
CVPR 2020, arXiv 1912.01991. A pretext task asks which transformation a picture went through, so
its features have to show it. PIRL asks the opposite: the embedding of the tiles of a picture in
any order, and that of the picture, must both be near the picture's own row in a memory bank and
far from rows of other pictures.

The negatives of a step are drawn once for all pictures of it, rather than for each picture.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.data.views.pretext_tasks import NUM_TILES, PictureAndJigsawViews
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.methods.jigsaw import side_by_side
from swav.nn.backbones import encode_views
from swav.nn.heads import HeadConfig
from swav.nn.memory import MemoryBank
from swav.ops.losses import memory_nce


@dataclass(frozen=True, kw_only=True)
class PIRLConfig(ObjectiveConfig):
    """PIRL (Misra & van der Maaten, 2020): a picture and its jigsaw against a memory bank."""

    name: ClassVar[str] = "pirl"
    title: ClassVar[str] = "PIRL"
    has_negatives: ClassVar[bool] = True

    head: HeadConfig = HeadConfig(hidden_dim=0)
    """Of the whole picture; linear, as published first."""
    temperature: float = 0.07
    num_negatives: int = 32_000
    """Rows of the bank to compare with in each step; at most as many as there are pictures."""
    memory_momentum: float = 0.5
    """Share of the old row in the new one."""
    jigsaw_weight: float = 0.5
    """Lambda of eq. 5: of the jigsaw's loss; the picture's has the rest."""
    gap: float = 0.25
    """Share of each side of a cell that its tile leaves out."""
    tile_size: int | None = None
    """Enlarge or reduce tiles to this many pixels; by default they stay as they are cut."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} must be positive: PIRL uses 0.07")
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives {self.num_negatives} must be at least 1")
        if not 0 <= self.memory_momentum < 1:
            raise ValueError(
                f"memory_momentum {self.memory_momentum} must be at least 0 and below 1: try 0.5"
            )
        if not 0 < self.jigsaw_weight < 1:
            raise ValueError(f"jigsaw_weight {self.jigsaw_weight} must lie between 0 and 1")
        if not 0 <= self.gap <= 0.9:
            raise ValueError(f"gap {self.gap} must be 0 to 0.9: PIRL uses 0.25")
        check_ranges(self, temperature="(0, inf)", num_negatives="[1, inf)", tile_size="[1, 10000]")

    @property
    def pretext(self) -> PictureAndJigsawViews:
        """What the task makes of the views."""
        return PictureAndJigsawViews(gap=self.gap, tile_size=self.tile_size)

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "PIRL":
        """Return the objective around ``backbone``.

        Raises:
            ValueError: if there are no other pictures to compare with.
        """
        if facts.num_images < 2:
            raise ValueError(f"{facts.num_images} picture has no negatives: PIRL needs at least 2")
        return PIRL(self, backbone, facts)


class PIRL(Objective):
    """Pretext-invariant embeddings by noise-contrastive estimation."""

    def __init__(self, config: PIRLConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = backbone
        self.picture_head = config.head.build(facts.feature_dim)
        self.tile_head = nn.Linear(facts.feature_dim, config.head.embed_dim)
        self.jigsaw_head = nn.Linear(NUM_TILES * config.head.embed_dim, config.head.embed_dim)
        self.memory = MemoryBank(
            facts.num_images, config.head.embed_dim, momentum=config.memory_momentum
        )
        self._seen: list[tuple[Tensor, Tensor]] = []  # indices and embeddings of this step

    @property
    def encoder(self) -> nn.Module:
        """The backbone, which sees whole pictures."""
        return self.backbone

    def forward(self, batch: Batch, clock: Clock) -> StepOutput:
        """Return the loss of eq. 5; means over the whole views and over the jigsaws."""
        weight = self.config.jigsaw_weight
        pictures, jigsaws = self.embed(batch)
        # the picture's own embedding, f(v), goes into the bank, as VISSL does
        self._seen.append((batch.indices, pictures.detach().mean(dim=0)))
        jigsaw_loss, picture_loss = self._contrast((jigsaws, pictures), batch.indices, clock)
        return StepOutput(
            weight * jigsaw_loss + (1 - weight) * picture_loss,
            {
                "jigsaw_loss": jigsaw_loss.detach().cpu(),
                "picture_loss": picture_loss.detach().cpu(),
            },
        )

    def embed(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "targets batch embed"], Float[Tensor, "jigsaws batch embed"]]:
        """Return unit embeddings of the whole views, f(v), and of the jigsaws, g(v)."""
        size = len(batch.indices)
        features = encode_views(self.backbone, batch.views)
        pictures = self.picture_head(torch.cat(features[: batch.num_targets]))
        tiles = self.tile_head(torch.cat(features[batch.num_targets :]))
        jigsaws = self.jigsaw_head(side_by_side(tiles, size))
        unit_pictures, unit_jigsaws = (
            # half precision has 3 digits: too few for cosines over a temperature of 0.07
            F.normalize(rows.float(), dim=1).view(-1, size, self.config.head.embed_dim)
            for rows in (pictures, jigsaws)
        )
        return unit_pictures, unit_jigsaws

    def _contrast(
        self, kinds: tuple[Tensor, ...], indices: Tensor, clock: Clock
    ) -> list[Float[Tensor, ""]]:
        """Return the loss of each kind of embedding against the bank."""
        # small data have fewer rows than the published 32,000
        number = min(self.config.num_negatives, self.memory.num_images)
        chosen = self.memory.draw(number, step=clock.step).to(indices.device)
        negatives = self.memory.rows_of(chosen)[0]
        memories = self.memory.own_rows_of(indices)[0]
        # draws are shared by the batch, so a negative may be a picture's own row
        same = indices[:, None] == chosen
        return [
            torch.stack(
                [
                    memory_nce(
                        rows,
                        memories.to(rows),
                        negatives.to(rows),
                        same,
                        temperature=self.config.temperature,
                    )
                    for rows in kind
                ]
            ).mean()
            for kind in kinds
        ]

    def before_step(self, _clock: Clock) -> None:
        """Forget the embeddings of the step before."""
        self._seen.clear()

    def after_step(self, _clock: Clock) -> None:
        """Move the rows of this step's pictures towards their new embeddings."""
        indices, embeddings = zip(*self._seen, strict=True)
        self.memory.update(torch.cat(indices), torch.cat(embeddings)[None])
