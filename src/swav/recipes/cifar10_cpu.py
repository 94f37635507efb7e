"""CIFAR-10 on a CPU with each method, in the time that two cores have.

Where a method can give each view BatchNorm statistics of its own, these do not: the results in
``benchmarks/`` are of views that share them.
"""

from dataclasses import replace

from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine.optim import OptimConfig
from swav.methods import (
    BarlowConfig,
    BYOLConfig,
    CPCConfig,
    DeepClusterConfig,
    InstDiscConfig,
    JigsawConfig,
    MethodConfig,
    MoCoConfig,
    PIRLConfig,
    RelativeConfig,
    RotationConfig,
    SeLaConfig,
    SimCLRConfig,
    SwAVConfig,
    VICRegConfig,
)
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import EXPANDER, HeadConfig
from swav.recipes.imagenet_others import MOSTLY_GREY, ONLY_FLIPS
from swav.recipes.small_gpu import CIFAR_MEAN, CIFAR_STD, HALF_JITTER
from swav.recipes.train_config import TrainConfig

HEAD = HeadConfig(hidden_dim=512)
SMALL_EXPANDER = replace(EXPANDER, hidden_dim=512, embed_dim=512)
SMALL_RESNET = BackboneConfig(
    name="resnet18",
    args={
        "layers": [1, 1, 1, 1],
        "channels": [32, 64, 128, 256],
        "stem_type": "deep",
        "stem_width": 16,
        "zero_init_last": False,
    },
)
"""Half the depth and half the width of ResNet-18 (1.2 M parameters); plain timm opens it."""


def cifar10_cpu() -> TrainConfig:
    """Train a small ResNet on CIFAR-10 within 40 minutes on two CPU cores.

    Source: our own. Sharp codes and few prototypes, as a short run needs; crops larger than the
    pictures, because the network's stem halves them twice.
    Hardware: two CPU cores, 22 min.
    Result: kNN (k = 20) 50.7, linear 56.7, one seed (``benchmarks/cifar10_2cpu_2026-11-22.md``).
    """
    augment = replace(HALF_JITTER, blur=0.0)
    # the stem halves pictures twice, so 48 pixels from 32: several points of kNN
    # (docs/decisions/0007)
    large = CropGroup(count=2, size=(48, 48), scale=(0.2, 1.0), augment=augment)
    small = CropGroup(count=4, size=(28, 28), scale=(0.05, 0.2), augment=augment)
    return TrainConfig(
        views=ViewsConfig(groups=(large, small), mean=CIFAR_MEAN, std=CIFAR_STD),
        backbone=SMALL_RESNET,
        method=SwAVConfig(
            num_prototypes=(100,), head=HeadConfig(hidden_dim=512), epsilon=0.025, freeze_steps=20
        ),
        optim=OptimConfig(
            optimizer="adamw",
            batch_size=128,
            learning_rate=1.5e-3,
            warmup_epochs=0.2,
            weight_decay=0.05,
        ),
        epochs=5,
    )


def deepcluster_cifar10_cpu() -> TrainConfig:
    """Train DeepCluster-v2 on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own.
    Hardware: two CPU cores; 12.3 min of one with smaller crops.
    Result: kNN 39.3, linear 43.9 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    return _with(DeepClusterConfig(num_prototypes=(100, 100, 100), head=HEAD))


def sela_cifar10_cpu() -> TrainConfig:
    """Train SeLa-v2 on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own.
    Hardware: two CPU cores; 6.1 min of one with smaller crops.
    Result: kNN 40.2, linear 43.4 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    return _with(SeLaConfig(num_prototypes=(100, 100, 100), head=HEAD, epsilon=0.025))


def simclr_cifar10_cpu() -> TrainConfig:
    """Train SimCLR on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; temperature 0.2 as in solo-learn's benchmark.
    Hardware: two CPU cores; 9.0 min of one with smaller crops.
    Result: kNN 45.7, linear 48.2 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    # 0.2 as solo-learn has it on CIFAR-10
    return _with(SimCLRConfig(head=HEAD, temperature=0.2))


def moco_cifar10_cpu() -> TrainConfig:
    """Train MoCo v2 on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; a short queue and a quick key encoder, because the run is short.
    Hardware: two CPU cores; 12.3 min of one with smaller crops.
    Result: kNN 37.3, linear 41.4 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    return _with(
        MoCoConfig(
            head=replace(HEAD, batchnorm=False),
            queue_length=4096,
            momentum=0.99,
            # keys in company of other groups: on one rank nothing else hides which is whose
            batchnorm_groups=4,
        )
    )


def byol_cifar10_cpu() -> TrainConfig:
    """Train BYOL on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; small steps, and a predictor that keeps up with them (``docs/log.md``).
    Hardware: two CPU cores; 8.1 min of one with smaller crops.
    Result: kNN 37.1, linear 41.0 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    # x 20: directions of the embedding die out at a rate that teaches anything (docs/log.md)
    config = _with(BYOLConfig(head=HEAD, predictor_rate=20, batchnorm_per_view=False))
    return replace(config, optim=replace(config.optim, batch_size=64, learning_rate=0.0005))


def instdisc_cifar10_cpu() -> TrainConfig:
    """Train instance discrimination on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; temperature 0.1 as SwAV's.
    Hardware: two CPU cores; 9.7 min of one with smaller crops.
    Result: kNN 39.9, linear 40.7 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    return _with(InstDiscConfig(num_negatives=4096, temperature=0.1))


def barlow_cifar10_cpu() -> TrainConfig:
    """Train Barlow Twins on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; an embedding small enough for the batch.
    Hardware: two CPU cores; 12.0 min of one with smaller crops.
    Result: kNN 37.9, linear 42.4 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    return _with(BarlowConfig(head=SMALL_EXPANDER, batchnorm_per_view=False))


def vicreg_cifar10_cpu() -> TrainConfig:
    """Train VICReg on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; an embedding small enough for the batch.
    Hardware: two CPU cores; 6.2 min of one with smaller crops.
    Result: kNN 41.6, linear 45.2 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    return _with(VICRegConfig(head=SMALL_EXPANDER, batchnorm_per_view=False))


def rotation_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet to tell rotations of CIFAR-10 on two CPU cores.

    Source: our own; the budget of cifar10-cpu.
    Hardware: two CPU cores; 6.2 min of one with smaller crops.
    Result: kNN 41.1, linear 45.4 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    crops = CropGroup(count=4, size=(40, 40), scale=(0.5, 1.0), augment=ONLY_FLIPS)
    return _with(RotationConfig(), crops)


def jigsaw_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet to solve jigsaws of CIFAR-10 on two CPU cores.

    Source: our own; the budget of cifar10-cpu. Views of 96 pixels give tiles of 24.
    Hardware: two CPU cores; 26.5 min of one with smaller crops.
    Result: kNN 35.7, linear 40.7 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    crops = CropGroup(count=2, size=(96, 96), scale=(0.5, 1.0), augment=MOSTLY_GREY)
    return _with(JigsawConfig(num_permutations=100, tile_dim=128), crops)


def relative_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet to tell relative positions of patches of CIFAR-10 on two CPU cores.

    Source: our own; the budget of cifar10-cpu. Views of 96 pixels give patches of 24.
    Hardware: two CPU cores; 7.7 min of one with smaller crops.
    Result: kNN 37.1, linear 42.1 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    crops = CropGroup(count=4, size=(96, 96), scale=(0.5, 1.0), augment=MOSTLY_GREY)
    return _with(RelativeConfig(gap=0.25, jitter=1.0, colour="keep", hidden_dim=512), crops)


def pirl_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet on CIFAR-10 with PIRL on two CPU cores.

    Source: our own; the budget of cifar10-cpu. A view of 96 pixels gives tiles of 24.
    Hardware: two CPU cores; 12.0 min of one with smaller crops.
    Result: kNN 41.2, linear 44.1 with these (``benchmarks/methods_2cpu_2026-11-22.md``).
    """
    augment = replace(HALF_JITTER, blur=0.0)
    pictures = CropGroup(count=2, size=(48, 48), scale=(0.2, 1.0), augment=augment)
    jigsaw = CropGroup(count=1, size=(96, 96), scale=(0.6, 1.0), augment=augment)
    return _with(PIRLConfig(head=HeadConfig(hidden_dim=512), num_negatives=4096), pictures, jigsaw)


def cpc_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet on CIFAR-10 with CPC on two CPU cores.

    Source: our own; the budget of cifar10-cpu. Views of 96 pixels give 5x5 patches of 32.
    Hardware: two CPU cores; more than 10 min, not measured.
    Result: not measured.
    """
    crops = CropGroup(count=1, size=(96, 96), scale=(0.5, 1.0), augment=MOSTLY_GREY)
    method = CPCConfig(grid=5, first_step=2, context_blocks=3, hidden_dim=128)
    return _with(method, crops)


def _with(method: MethodConfig, *groups: CropGroup) -> TrainConfig:
    """Return the run of ``cifar10-cpu`` with another method, and its own views if it has any."""
    config = replace(cifar10_cpu(), method=method)
    return replace(config, views=replace(config.views, groups=groups)) if groups else config
