"""A small network and a batch for objectives that make their own labels."""

import numpy as np
import torch
from torch import Tensor, nn

from swav.data.batch import Batch
from swav.data.loader import StepViews
from swav.data.sources.open import from_arrays
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine import Clock, Objective, TrainingFacts
from swav.methods import MethodConfig

CLOCK = Clock(step=0, epoch=0, steps_per_epoch=1, total_steps=1, images=0)
BATCH = 4
VIEWS = ViewsConfig(
    groups=(
        CropGroup(count=2, size=(18, 18), scale=(0.5, 1.0)),
        CropGroup(count=1, size=(21, 18), scale=(0.5, 1.0)),
    )
)


class Network(nn.Module):
    """Sees place and colour: the mean of each quarter after a convolution."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.convolution(pictures).tanh()
        return nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)


def objective_and_batch(method: MethodConfig, width: int = 3) -> tuple[Objective, Batch]:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 24, 24, 3), dtype=np.uint8)
    views = StepViews(from_arrays(pixels), VIEWS, global_batch=BATCH, pretext=method.pretext)
    objective = method.build(
        Network(width), TrainingFacts(feature_dim=4 * width, num_images=BATCH, global_batch=BATCH)
    )
    return objective, views[0]
