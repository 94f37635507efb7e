"""The recipe of ``swav demo``: the built-in pictures on a CPU, within minutes."""

from swav.data.sources.open import SourceConfig
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine.optim import OptimConfig
from swav.methods import SwAVConfig
from swav.nn.heads import HeadConfig
from swav.recipes.cifar10_cpu import SMALL_RESNET
from swav.recipes.train_config import TrainConfig


def demo() -> TrainConfig:
    """Train a small ResNet on the built-in emoji within minutes on two CPU cores.

    Source: our own. Drawings differ by colour, so the jitter is weak. Two small crops and more
    epochs come further here in the same time than four small crops.
    Hardware: two CPU cores.
    Result: kNN (k = 10) 61.5 +- 0.8 over three seeds (``benchmarks/demo_2cpu_2026-11-22.md``).
    """
    augment = AugmentConfig(
        brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, grey=0.1, blur=0.0
    )
    large = CropGroup(count=2, size=(32, 32), scale=(0.3, 1.0), augment=augment)
    # two rather than four: kNN 0.610 against 0.580 in the same time (docs/log.md)
    small = CropGroup(count=2, size=(20, 20), scale=(0.08, 0.35), augment=augment)
    return TrainConfig(
        data=SourceConfig(data="emoji"),
        views=ViewsConfig(groups=(large, small)),
        backbone=SMALL_RESNET,
        method=SwAVConfig(
            num_prototypes=(60,), head=HeadConfig(hidden_dim=512), epsilon=0.03, freeze_steps=20
        ),
        optim=OptimConfig(
            optimizer="adamw",
            batch_size=64,
            learning_rate=1.5e-3,
            warmup_epochs=2,
            weight_decay=1e-4,
        ),
        epochs=48,
    )
