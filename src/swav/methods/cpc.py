"""CPC: from the patches above, predict those below.

van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018,
arXiv 1807.03748; Hénaff et al., "Data-Efficient Image Recognition with Contrastive Predictive
Coding", 2019, arXiv 1905.09272. A picture is a grid of patches that overlap, each encoded alone. A
masked convolutional network sums up a patch and the rows above it; from that context the patch k
rows further down is predicted, and told from all other patches of all pictures (InfoNCE). Close
patches are thus positives, far ones and those of other pictures negatives.

The published one predicts in four directions and cuts each patch at random; here it is downwards
alone, and flipped pictures show both sides.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.data.views.patch_grid import PatchGrid
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.backbones import encode_views
from swav.ops.losses import patch_nce

Patches = Float[Tensor, "pictures features rows columns"]


@dataclass(frozen=True, kw_only=True)
class CPCConfig(ObjectiveConfig):
    """CPC (van den Oord et al., 2018; Hénaff et al., 2019): predict the patches further down."""

    name: ClassVar[str] = "cpc"
    title: ClassVar[str] = "CPC"
    has_negatives: ClassVar[bool] = True
    min_views: ClassVar[int] = 1
    needs_whole_batch: ClassVar[str] = (
        "CPC tells a patch from those of all pictures of the batch, so parts of it are less"
    )

    grid: int = 7
    """Patches along each side of a view."""
    overlap: float = 0.5
    """Share of each side of a patch that the next one shows too."""
    first_step: int = 1
    """Rows down to the nearest patch that is predicted; 2 is the first without overlap."""
    last_step: int = 3
    """Rows down to the farthest; below the grid."""
    context_blocks: int = 5
    """Of the context network; each sees one row more above, and a column more on each side."""
    hidden_dim: int = 256
    """Width inside a block."""
    embed_dim: int = 64
    """Size of predictions and targets."""
    scale: float = 0.1
    """Of the products of predictions and targets."""
    tile_size: int | None = None
    """Enlarge or reduce patches to this many pixels; by default they stay as they are cut."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            grid="[2, 32]",
            overlap="[0, 0.9]",
            first_step="[1, 31]",
            last_step="[1, 31]",
            context_blocks="[1, 100]",
            hidden_dim="[1, 1e6]",
            embed_dim="[1, 1e6]",
            scale="(0, inf)",
            tile_size="[1, 10000]",
        )

    @property
    def pretext(self) -> PatchGrid:
        """How views are cut."""
        return PatchGrid(grid=self.grid, overlap=self.overlap, tile_size=self.tile_size)

    def check(self, facts: TrainingFacts) -> list[str]:
        """Raise a ValueError if the rows to predict are not those of the grid."""
        if not self.first_step <= self.last_step < self.grid:
            raise ValueError(
                f"first_step {self.first_step} to last_step {self.last_step}: give rows from 1 to "
                f"{self.grid - 1}, the nearest first, of a grid of {self.grid}"
            )
        return super().check(facts)

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "CPC":
        """Return the objective around ``backbone``.

        Raises:
            ValueError: if the rows to predict are not those of the grid.
        """
        self.check(facts)
        return CPC(self, backbone, facts)


class CPC(Objective):
    """Prediction of patches from the context above them."""

    def __init__(self, config: CPCConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = backbone
        size = facts.feature_dim
        self.context = nn.ModuleList(
            _ContextBlock(size, config.hidden_dim) for _ in range(config.context_blocks)
        )
        # a bias of the targets would change all products of a prediction alike
        self.target = nn.Conv2d(size, config.embed_dim, kernel_size=1, bias=False)
        self.predictions = nn.ModuleList(
            nn.Conv2d(size, config.embed_dim, kernel_size=1)
            for _ in range(config.first_step, config.last_step + 1)
        )

    @property
    def encoder(self) -> nn.Module:
        """The backbone, which sees whole pictures once it is trained."""
        return self.backbone

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the loss, the mean over steps down and over the patches of each."""
        patches = self.encode(batch)
        context = self.context_of(patches)
        targets = self.target(patches)
        losses = []
        for down, predict in enumerate(self.predictions, start=self.config.first_step):
            # the last rows have nothing so far below them
            predicted = predict(context[:, :, :-down])
            losses.append(patch_nce(predicted, targets, down=down, scale=self.config.scale))
        return StepOutput(torch.stack(losses).mean())

    def encode(self, batch: Batch) -> Patches:
        """Return the features of the patches of each view, one view of all pictures after another.

        ``batch.views`` are view after view, patch after patch.
        """
        grid, pictures = self.config.grid, len(batch.indices)
        features = torch.cat(encode_views(self.backbone, batch.views))
        by_view = features.view(-1, grid, grid, pictures, features.shape[1])
        return by_view.permute(0, 3, 4, 1, 2).flatten(0, 1)

    def context_of(self, patches: Patches) -> Patches:
        """Return what is known at each patch: of its own row and those above."""
        context = patches
        for block in self.context:
            context = context + block(context)
        return F.relu(context)


class _ContextBlock(nn.Module):
    """Convolutions that see no row below (the appendix of Hénaff et al.)."""

    def __init__(self, size: int, hidden_dim: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(size, hidden_dim, kernel_size=1)
        self.across = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=(1, 3), padding=(0, 1))
        self.down = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=(2, 1))
        self.widen = nn.Conv2d(hidden_dim, size, kernel_size=1)

    def forward(self, context: Patches) -> Patches:
        """Return what the block adds."""
        hidden = self.across(F.relu(self.reduce(context)))
        from_above = F.relu(self.down(F.pad(hidden, (0, 0, 1, 0))))  # a row of zeros on top
        added: Tensor = self.widen(from_above)
        return added
