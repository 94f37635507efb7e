"""Small public data sets on one GPU: CIFAR, STL-10, Imagenette.

Their settings start from published benchmarks, whose figures stand in the docstrings and are
those of others; results of these recipes themselves are in ``benchmarks/``.
"""

from dataclasses import replace

from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine.optim import OptimConfig
from swav.methods import SwAVConfig
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import HeadConfig
from swav.recipes.imagenet_swav import RESNET50
from swav.recipes.train_config import TrainConfig

HALF_JITTER = AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
RESNET18 = replace(RESNET50, name="resnet18")
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def cifar10() -> TrainConfig:
    """Train a ResNet-18 for CIFAR-10 for 200 epochs on one GPU.

    Source: the settings of lightly's benchmark: two crops of 32 pixels, half the jitter, no blur,
    512 prototypes, head 512-512-128, Adam, cosine, batch 512. AdamW here.
    Hardware: one GPU, about 2 h on an A6000 there.
    Result: kNN (k = 200) 84.2 there, as the best epoch of one seed.
    """
    # lightly does not blur 32 pixels
    augment = replace(HALF_JITTER, blur=0.0)
    crops = CropGroup(count=2, size=(32, 32), scale=(0.14, 1.0), augment=augment)
    return TrainConfig(
        views=ViewsConfig(groups=(crops,), mean=CIFAR_MEAN, std=CIFAR_STD),
        backbone=BackboneConfig(name="cifar_resnet18"),
        method=SwAVConfig(num_prototypes=(512,), head=HeadConfig(hidden_dim=512), freeze_steps=0),
        optim=OptimConfig(optimizer="adamw", batch_size=512, learning_rate=4e-3, weight_decay=1e-6),
        epochs=200,
        precision="bf16-mixed",
    )


def cifar100() -> TrainConfig:
    """Train a ResNet-18 for CIFAR-100 for 1,000 epochs on one GPU.

    Source: the settings of cifar10 for the budget of solo-learn's benchmark.
    Hardware: one GPU; time not published.
    Result: linear 64.9 in solo-learn, with LARS, 3,000 prototypes and a queue.
    """
    return replace(cifar10(), epochs=1000)


def stl10() -> TrainConfig:
    """Train a ResNet-50 on STL-10's 96-pixel pictures for 100 epochs on one GPU.

    Source: the crops, prototypes, batch and learning rate of lightning-bolts' example.
    Hardware: one GPU, about 9 h on a V100 there.
    Result: none that others could repeat.
    """
    large = CropGroup(count=2, size=(96, 96), scale=(0.33, 1.0))
    small = CropGroup(count=4, size=(36, 36), scale=(0.10, 0.33))
    return TrainConfig(
        views=ViewsConfig(groups=(large, small)),
        backbone=RESNET50,
        method=SwAVConfig(num_prototypes=(512,), freeze_steps=0),
        optim=OptimConfig(optimizer="adamw", batch_size=128, learning_rate=1e-3, weight_decay=1e-6),
        epochs=100,
        precision="bf16-mixed",
    )


def imagenette() -> TrainConfig:
    """Train a ResNet-18 on Imagenette at 128 pixels for 200 epochs on one GPU.

    Source: the settings of lightly's benchmark: 2x128 + 6x64 crops, half the jitter, 3,000
    prototypes, head 512-2048-128, Adam, cosine, batch 256, no queue. AdamW here.
    Hardware: one GPU, 73 min on an A6000 there.
    Result: kNN 86.1 there, as the best epoch of one seed (800 epochs: 90.2).
    """
    large = CropGroup(count=2, size=(128, 128), scale=(0.14, 1.0), augment=HALF_JITTER)
    small = CropGroup(count=6, size=(64, 64), scale=(0.05, 0.14), augment=HALF_JITTER)
    return TrainConfig(
        views=ViewsConfig(groups=(large, small)),
        backbone=RESNET18,
        method=SwAVConfig(num_prototypes=(3000,), freeze_steps=0),
        optim=OptimConfig(optimizer="adamw", batch_size=256, learning_rate=1e-3, weight_decay=1e-6),
        epochs=200,
        precision="bf16-mixed",
    )
