"""Pretext tasks and PIRL: the published settings on ImageNet, and CIFAR-10 on a CPU.

The settings are those of public benchmarks of ResNet-50 (VISSL, mmselfsup), whose figures stand in
the docstrings. Three things differ: where they divide the learning rate by ten at fixed epochs, a
cosine falls here; Nesterov's momentum is ordinary momentum; and where they resize a picture and
cut a square, the largest square is resized. What could not be read in a source says so.
"""

from dataclasses import replace

from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine.optim import OptimConfig
from swav.methods import JigsawConfig, MethodConfig, PIRLConfig, RelativeConfig, RotationConfig
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import HeadConfig
from swav.recipes.small_gpu import CIFAR_MEAN, CIFAR_STD, HALF_JITTER, cifar10_cpu
from swav.recipes.train_config import TrainConfig

ONLY_FLIPS = AugmentConfig(jitter=0.0, grey=0.0, blur=0.0)
MOSTLY_GREY = AugmentConfig(jitter=0.0, grey=0.66, blur=0.0)
"""Colour is a hint at which tiles belong together, so it is dropped in two of three pictures."""


def rotation_r50_105ep() -> TrainConfig:
    """Train ResNet-50 to tell rotations for 105 epochs.

    Source: VISSL's benchmark of RotNet: batch 256, SGD at 0.1, divided by ten at epochs 30, 60, 90
    and 100 there. Crops and weight decay are not verified.
    Hardware: 8 GPUs.
    Result: linear 48.2 there; features are best before the last stage.
    """
    crops = CropGroup(count=2, size=(224, 224), scale=(0.08, 1.0), augment=ONLY_FLIPS)
    return TrainConfig(
        views=ViewsConfig(groups=(crops,)),
        backbone=_RESNET50,
        method=RotationConfig(),
        optim=_sgd(256, 0.1),
        epochs=105,
    )


def jigsaw_r50_105ep() -> TrainConfig:
    """Train ResNet-50 to solve jigsaws of 2,000 permutations for 105 epochs.

    Source: VISSL's benchmark of jigsaw: squares of 255 pixels, grey in two of three, tiles of 64
    out of 85, head 2048-1000 for each tile, batch 256, SGD at 0.1 after 5 epochs from 0.025,
    divided by ten at epochs 30, 60, 90 and 100 there. Weight decay is not verified.
    Hardware: 8 GPUs.
    Result: linear 48.57 there, with 100 permutations; features are best before the last stage.
    """
    return TrainConfig(
        views=_squares(),
        backbone=_RESNET50,
        method=JigsawConfig(num_permutations=2000, gap=0.25, tile_dim=1000),
        optim=replace(_sgd(256, 0.1), start_learning_rate=0.025, warmup_epochs=5),
        epochs=105,
    )


def relative_r50_70ep() -> TrainConfig:
    """Train ResNet-50 to tell relative positions of patches for 70 epochs.

    Source: mmselfsup's benchmark: squares of 255 pixels, grey in two of three, patches of 64 out
    of 85 anywhere in their cell, batch 512, SGD at 0.2 after 5 epochs, divided by ten at epochs
    30 and 50 and five times the decay on the head there. Weight decay is not verified.
    Hardware: 8 GPUs.
    Result: linear 40.4 there; features are best before the last stage.
    """
    return TrainConfig(
        views=_squares(),
        backbone=_RESNET50,
        method=RelativeConfig(gap=0.25, jitter=1.0, colour="keep"),
        optim=replace(_sgd(512, 0.2), warmup_epochs=5),
        epochs=70,
    )


def pirl_r50_800ep() -> TrainConfig:
    """Train ResNet-50 with PIRL for 800 epochs.

    Source: VISSL's PIRL: one crop of 224 pixels, one of at least 60 % of the area at 255 for the
    jigsaw, colour jitter 0.4/0.4/0.4/0.2 always, 32,000 negatives, memory momentum 0.5,
    temperature 0.07, batch 1,024, SGD at 0.12 to 0.00012, no decay of biases and norms. Negatives
    are drawn for each picture there, and there is one more photometric change.
    Hardware: 32 GPUs (not verified).
    Result: linear 64.29 there; 69.9 with a hidden layer in the head and blur.
    """
    augment = AugmentConfig(
        jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, blur=0.0
    )
    picture = CropGroup(count=1, size=(224, 224), scale=(0.08, 1.0), augment=augment)
    jigsaw = CropGroup(count=1, size=(255, 255), scale=(0.6, 1.0), augment=augment)
    return TrainConfig(
        views=ViewsConfig(groups=(picture, jigsaw)),
        backbone=_RESNET50,
        method=PIRLConfig(),
        optim=replace(_sgd(1024, 0.12), final_learning_rate=0.00012, decay_vectors=False),
        epochs=800,
    )


def rotation_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet to tell rotations of CIFAR-10 on two CPU cores.

    Source: our own; the budget of cifar10-cpu.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    crops = CropGroup(count=4, size=(40, 40), scale=(0.5, 1.0), augment=ONLY_FLIPS)
    return _on_cpu(RotationConfig(), crops)


def jigsaw_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet to solve jigsaws of CIFAR-10 on two CPU cores.

    Source: our own; the budget of cifar10-cpu. Views of 96 pixels give tiles of 24.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    crops = CropGroup(count=2, size=(96, 96), scale=(0.5, 1.0), augment=MOSTLY_GREY)
    return _on_cpu(JigsawConfig(num_permutations=100, tile_dim=128), crops)


def relative_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet to tell relative positions of patches of CIFAR-10 on two CPU cores.

    Source: our own; the budget of cifar10-cpu. Views of 96 pixels give patches of 24.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    crops = CropGroup(count=4, size=(96, 96), scale=(0.5, 1.0), augment=MOSTLY_GREY)
    return _on_cpu(RelativeConfig(gap=0.25, jitter=1.0, colour="keep", hidden_dim=512), crops)


def pirl_cifar10_cpu() -> TrainConfig:
    """Train a small ResNet on CIFAR-10 with PIRL on two CPU cores.

    Source: our own; the budget of cifar10-cpu. A view of 96 pixels gives tiles of 24.
    Hardware: two CPU cores.
    Result: see ``benchmarks/``.
    """
    augment = replace(HALF_JITTER, blur=0.0)
    pictures = CropGroup(count=2, size=(48, 48), scale=(0.2, 1.0), augment=augment)
    jigsaw = CropGroup(count=1, size=(96, 96), scale=(0.6, 1.0), augment=augment)
    return _on_cpu(
        PIRLConfig(head=HeadConfig(hidden_dim=512), num_negatives=4096), pictures, jigsaw
    )


_RESNET50 = BackboneConfig(name="resnet50", args={"zero_init_last": False})


def _sgd(batch_size: int, learning_rate: float) -> OptimConfig:
    return OptimConfig(
        optimizer="sgd", batch_size=batch_size, learning_rate=learning_rate, weight_decay=1e-4
    )


def _squares() -> ViewsConfig:
    """Return two views of the largest square of the picture, at 255 pixels."""
    square = CropGroup(
        count=2, size=(255, 255), scale=(1.0, 1.0), ratio=(1.0, 1.0), augment=MOSTLY_GREY
    )
    return ViewsConfig(groups=(square,))


def _on_cpu(method: MethodConfig, *groups: CropGroup) -> TrainConfig:
    """Return the run of ``cifar10-cpu`` with another method and its views."""
    views = ViewsConfig(groups=groups, mean=CIFAR_MEAN, std=CIFAR_STD)
    return replace(cifar10_cpu(), method=method, views=views)
