"""CIFAR-10 on a CPU with each method: data, crops, network and budget of ``cifar10-cpu``.

Where a method can give each view BatchNorm statistics of its own, these do not: the results in
``benchmarks/`` are of views that share them.
"""

from dataclasses import replace

from swav.methods import (
    BarlowConfig,
    BYOLConfig,
    DeepClusterConfig,
    InstDiscConfig,
    MethodConfig,
    MoCoConfig,
    SeLaConfig,
    SimCLRConfig,
    VICRegConfig,
)
from swav.nn.heads import EXPANDER, HeadConfig
from swav.recipes.small_gpu import cifar10_cpu
from swav.recipes.train_config import TrainConfig

HEAD = HeadConfig(hidden_dim=512)
SMALL_EXPANDER = replace(EXPANDER, hidden_dim=512, embed_dim=512)


def deepcluster_cifar10_cpu() -> TrainConfig:
    """Train DeepCluster-v2 on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    return _with(DeepClusterConfig(num_prototypes=(100, 100, 100), head=HEAD))


def sela_cifar10_cpu() -> TrainConfig:
    """Train SeLa-v2 on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    return _with(SeLaConfig(num_prototypes=(100, 100, 100), head=HEAD, epsilon=0.025))


def simclr_cifar10_cpu() -> TrainConfig:
    """Train SimCLR on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; temperature 0.2 as in solo-learn's benchmark.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    return _with(SimCLRConfig(head=HEAD, temperature=0.2))


def moco_cifar10_cpu() -> TrainConfig:
    """Train MoCo v2 on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; a short queue and a quick key encoder, because the run is short.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    return _with(
        MoCoConfig(
            head=replace(HEAD, batchnorm=False),
            queue_length=4096,
            momentum=0.99,
            batchnorm_groups=4,
        )
    )


def byol_cifar10_cpu() -> TrainConfig:
    """Train BYOL on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; small steps, and a predictor that keeps up with them (``docs/log.md``).
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    config = _with(BYOLConfig(head=HEAD, predictor_rate=20, batchnorm_per_view=False))
    return replace(config, optim=replace(config.optim, batch_size=64, learning_rate=0.0005))


def instdisc_cifar10_cpu() -> TrainConfig:
    """Train instance discrimination on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; temperature 0.1 as SwAV's.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    return _with(InstDiscConfig(num_negatives=4096, temperature=0.1))


def barlow_cifar10_cpu() -> TrainConfig:
    """Train Barlow Twins on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; an embedding small enough for the batch.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    return _with(BarlowConfig(head=SMALL_EXPANDER, batchnorm_per_view=False))


def vicreg_cifar10_cpu() -> TrainConfig:
    """Train VICReg on CIFAR-10 with the budget of cifar10-cpu.

    Source: our own; an embedding small enough for the batch.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    return _with(VICRegConfig(head=SMALL_EXPANDER, batchnorm_per_view=False))


def _with(method: MethodConfig) -> TrainConfig:
    return replace(cifar10_cpu(), method=method)
