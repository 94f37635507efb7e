"""The recipe of ``swav demo`` from scratch: the built-in photos on a CPU, in two minutes."""

from dataclasses import replace

from swav.data.sources.open import SourceConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine.optim import OptimConfig
from swav.methods import SwAVConfig
from swav.nn.heads import HeadConfig
from swav.recipes.cifar10_cpu import SMALL_RESNET
from swav.recipes.small_gpu import HALF_JITTER
from swav.recipes.train_config import TrainConfig


def demo() -> TrainConfig:
    """Train a small ResNet from scratch on the built-in photos, in two minutes on two CPU cores.

    What ``swav demo`` shows beside its run from published weights.

    Source: our own: the crops of auto, but two small ones, for more epochs in the same time.
    Hardware: two CPU cores.
    Result: measured by ``benchmarks/demo.py``.
    """
    augment = replace(HALF_JITTER, blur=0.0)
    large = CropGroup(count=2, size=(64, 64), scale=(0.2, 1.0), augment=augment)
    small = CropGroup(count=2, size=(40, 40), scale=(0.05, 0.4), augment=augment)
    return TrainConfig(
        data=SourceConfig(data="clothes"),
        views=ViewsConfig(groups=(large, small)),
        backbone=SMALL_RESNET,
        method=SwAVConfig(
            num_prototypes=(60,), head=HeadConfig(hidden_dim=512), epsilon=0.03, freeze_steps=10
        ),
        optim=OptimConfig(
            optimizer="adamw",
            batch_size=64,
            learning_rate=1.5e-3,
            warmup_epochs=0.2,
            weight_decay=1e-4,
        ),
        epochs=2,
    )
