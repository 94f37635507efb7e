"""The published SwAV runs on ImageNet, one function a script (Caron et al., 2020).

All share: 128-dimensional embeddings, 3,000 prototypes, temperature 0.1, epsilon 0.05 with three
rounds of Sinkhorn, LARS without exclusions, weight decay 1e-6, cosine schedule, half precision,
seed 31, and the same photometric augmentation for every crop. Results are linear top-1 on
ImageNet as published; where others repeated a run, theirs stand beside it.

One thing differs from the scripts: where they synchronise BatchNorm over groups of eight GPUs
(the runs with a batch above 256), these do it over all ranks.
"""

from dataclasses import replace

from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine.optim import OptimConfig
from swav.methods import SwAVConfig
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import HeadConfig
from swav.recipes.train_config import TrainConfig

# timm starts residual branches at zero by default; the reference does not
RESNET50 = BackboneConfig(name="resnet50", args={"zero_init_last": False})


def swav_r50_800ep() -> TrainConfig:
    """Train ResNet-50 for 800 epochs with a batch of 4,096: the paper's main result.

    Source: scripts/swav_800ep_pretrain.sh; sec. 4.
    Hardware: 64 V100, 64 pictures each; 3 min 40 s an epoch, 49 h.
    Result: 75.3 (VISSL: 74.92; others report up to 1 % less).
    """
    return TrainConfig(
        views=_views(num_small=6),
        backbone=RESNET50,
        method=SwAVConfig(
            num_prototypes=(3000,),
            head=HeadConfig(hidden_dim=2048, embed_dim=128),
            temperature=0.1,
            epsilon=0.05,
            iterations=3,
            # 312 steps are an epoch of 64 x 64 pictures: one epoch and a step
            freeze_steps=313,
            queue_length=0,
            queue_start_epoch=0,
        ),
        optim=OptimConfig(
            optimizer="lars",
            batch_size=4096,
            learning_rate=4.8,
            start_learning_rate=0.3,
            final_learning_rate=0.0048,
            warmup_epochs=10,
            weight_decay=1e-6,
            momentum=0.9,
        ),
        epochs=800,
        seed=31,
        precision="16-mixed",
        sync_batchnorm=True,
    )


def swav_r50_400ep() -> TrainConfig:
    """Train ResNet-50 for 400 epochs with a batch of 4,096.

    Source: scripts/swav_400ep_pretrain.sh.
    Hardware: 64 V100, 64 pictures each; 3 min 40 s an epoch, 24 h.
    Result: 74.6 (VISSL: 74.81).
    """
    return replace(swav_r50_800ep(), epochs=400)


def swav_r50_200ep() -> TrainConfig:
    """Train ResNet-50 for 200 epochs with a batch of 4,096.

    Source: scripts/swav_200ep_pretrain.sh.
    Hardware: 64 V100, 64 pictures each; 3 min 40 s an epoch, 12 h.
    Result: 73.9 (VISSL: 73.85).
    """
    return replace(swav_r50_800ep(), epochs=200)


def swav_r50_100ep() -> TrainConfig:
    """Train ResNet-50 for 100 epochs with a batch of 4,096.

    Source: scripts/swav_100ep_pretrain.sh.
    Hardware: 64 V100, 64 pictures each; 6 h 15 min.
    Result: 72.1 (VISSL: 71.99, PASSL: 72.4).
    """
    return replace(swav_r50_800ep(), epochs=100)


def swav_r50_400ep_2x224() -> TrainConfig:
    """Train ResNet-50 for 400 epochs with a batch of 4,096 and without small crops.

    Source: scripts/swav_400ep_2x224_pretrain.sh. The two crops cover from 8 % of the picture.
    Hardware: 64 V100, 64 pictures each; time not published.
    Result: 70.1 (VISSL: 69.53).
    """
    return replace(swav_r50_800ep(), epochs=400, views=_views(num_small=0, scale=(0.08, 1.0)))


def swav_r50_200ep_bs256() -> TrainConfig:
    """Train ResNet-50 for 200 epochs with a batch of 256 and a queue.

    Source: scripts/swav_200ep_bs256_pretrain.sh. No warm-up; prototypes frozen for one epoch and
    a step; a queue of 3,840 from epoch 15; BatchNorm synchronised over all GPUs.
    Hardware: 4 V100, 64 pictures each; 52 min 10 s an epoch, 174 h.
    Result: 72.7 (VISSL: 73.07).
    """
    return replace(swav_r50_400ep_bs256(), epochs=200)


def swav_r50_400ep_bs256() -> TrainConfig:
    """Train ResNet-50 for 400 epochs with a batch of 256 and a queue.

    Source: scripts/swav_400ep_bs256_pretrain.sh.
    Hardware: 4 V100, 64 pictures each; 52 min 10 s an epoch, 348 h.
    Result: 74.3 (VISSL: 74.3).
    """
    large = swav_r50_400ep()
    return replace(
        large,
        # 5,004 steps an epoch; 3,840 = 15 batches of 256
        method=replace(_method(large), freeze_steps=5005, queue_length=3840, queue_start_epoch=15),
        optim=replace(
            large.optim,
            batch_size=256,
            learning_rate=0.6,
            start_learning_rate=0.0,
            final_learning_rate=0.0006,
            warmup_epochs=0,
        ),
    )


def swav_r50_400ep_8gpu() -> TrainConfig:
    """Train ResNet-50 for 400 epochs on one machine with eight GPUs.

    Source: the README's single-node command: 8 GPUs with 32 pictures each. As the global batch
    is the same, so is everything else of swav-r50-400ep-bs256.
    Hardware: 8 GPUs; time not published.
    Result: not published for this command.
    """
    return swav_r50_400ep_bs256()


def swav_r50w2_400ep() -> TrainConfig:
    """Train ResNet-50 of double width (94 M parameters) for 400 epochs.

    Source: scripts/swav_RN50w2_400ep_pretrain.sh: four small crops, hidden layer of 8,192.
    Hardware: 128 V100, 32 pictures each; time not published.
    Result: 77.3 (VISSL: 77.01).
    """
    narrow = swav_r50_400ep()
    return replace(
        narrow,
        views=_views(num_small=4),
        # 94 M parameters; the hidden layer of 8,192 is in the scripts alone, not in the paper
        backbone=BackboneConfig(name="resnet50w2"),
        method=replace(_method(narrow), head=HeadConfig(hidden_dim=8192)),
    )


def swav_r50w4_400ep() -> TrainConfig:
    """Train ResNet-50 of fourfold width (375 M parameters) for 400 epochs.

    Source: scripts/swav_RN50w4_400ep_pretrain.sh: batch 2,560, a queue of 2,560 from the start,
    and crops from 8 % of the picture in both sizes.
    Hardware: 64 V100, 40 pictures each; time not published.
    Result: 77.9 (VISSL: 77.03).
    """
    double = swav_r50w2_400ep()
    return replace(
        double,
        # as in its script, though the paper says "as A.1", that is 0.14 and 0.05
        views=_views(num_small=4, scale=(0.08, 1.0), small_scale=(0.08, 0.14)),
        backbone=BackboneConfig(name="resnet50w4"),
        method=replace(_method(double), queue_length=2560, queue_start_epoch=0),
        optim=replace(double.optim, batch_size=2560),
    )


def swav_r50w5_400ep() -> TrainConfig:
    """Train ResNet-50 of fivefold width (586 M parameters) for 400 epochs; partly a guess.

    Source: the paper: batch 1,536 (128 GPUs, 12 pictures each), a queue of 1,536 from the start,
    2x224 + 4x96 crops, 400 epochs (the VISSL model zoo says 300). The released weights have no
    BatchNorm in the head. No script was published. Unknown, and taken from swav-r50w4-400ep:
    crop scales, learning rates, warm-up, frozen steps, width of the hidden layer, prototypes.
    Hardware: 128 GPUs; time not published.
    Result: 78.5.
    """
    fourfold = swav_r50w4_400ep()
    return replace(
        fourfold,
        backbone=BackboneConfig(name="resnet50w5"),
        method=replace(
            _method(fourfold), queue_length=1536, head=HeadConfig(hidden_dim=8192, batchnorm=False)
        ),
        optim=replace(fourfold.optim, batch_size=1536),
    )


def _method(config: TrainConfig) -> SwAVConfig:
    assert isinstance(config.method, SwAVConfig)
    return config.method


def _views(
    *,
    num_small: int,
    scale: tuple[float, float] = (0.14, 1.0),
    small_scale: tuple[float, float] = (0.05, 0.14),
) -> ViewsConfig:
    """Return two crops of 224 pixels and ``num_small`` of 96, equally augmented."""
    groups = [CropGroup(count=2, size=(224, 224), scale=scale)]
    if num_small:
        groups.append(CropGroup(count=num_small, size=(96, 96), scale=small_scale))
    return ViewsConfig(groups=tuple(groups))
