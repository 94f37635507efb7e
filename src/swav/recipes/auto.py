"""The recipe for pictures nobody has tuned for: every choice from a table, and the reasons.

Choices depend on the number and size of the pictures and on the kind of device alone, never on a
measured speed, so that the same command makes the same run again.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from swav.config import differences
from swav.data.sources.pictures import DataFacts
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine.launch import is_gpu
from swav.engine.optim import OptimConfig
from swav.methods import SwAVConfig
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import HeadConfig
from swav.recipes.cifar10_cpu import SMALL_RESNET
from swav.recipes.head_training import HEAD_STEPS, head_training
from swav.recipes.imagenet_swav import RESNET50
from swav.recipes.small_gpu import HALF_JITTER, RESNET18
from swav.recipes.start_network import RANDOM, is_published, whole_patches, with_start
from swav.recipes.train_config import TrainConfig


class _CpuRow(NamedTuple):
    from_side: int
    """For pictures whose shorter side is at least this."""
    large: int
    small: int
    pictures_per_second: int
    """Trained on two cores with SMALL_RESNET: 2 large and 4 small crops of each picture."""


class _GpuRow(NamedTuple):
    from_side: int
    large: int
    small: int
    num_small: int


class _EpochsRow(NamedTuple):
    from_images: int
    epochs: int


CPU_CROPS = (_CpuRow(0, 40, 24, 150), _CpuRow(96, 64, 40, 60))
PUBLISHED_CPU_CROPS = _CpuRow(0, 64, 48, 20)
"""For a start from published weights, of networks of the size of ResNet-18."""
GPU_CROPS = (
    _GpuRow(0, 32, 20, 4),
    _GpuRow(48, 64, 36, 4),
    _GpuRow(96, 96, 48, 4),
    _GpuRow(128, 128, 64, 6),
    _GpuRow(200, 224, 96, 6),
)
GPU_EPOCHS = (_EpochsRow(0, 400), _EpochsRow(10_000, 200), _EpochsRow(1_000_000, 100))
CPU_SECONDS = 480
"""What training may take on a CPU; the rest of ten minutes is for loading and evaluation."""
CPU_MOST_EPOCHS = 300
PROTOTYPES_PER_ROOT = 1.4
"""Prototypes are this times the square root of the number of pictures."""
TINY_SIDE = 16
"""Below so many pixels small crops keep a quarter of the picture or more: with less, views have so
little in common that a run stays where it predicts all prototypes alike."""
PUBLISHED_LEARNING_RATE = 1e-4
"""At most, from published weights: with more they are soon forgotten."""
ENLARGEMENT = 8
"""Crops, and pictures shown to a published network, are at most this times as large."""
HEAD_UP_TO = 20_000
"""Pictures up to which published weights stay as they are and prototypes alone learn: seconds, and
never worse features (docs/decisions/0022)."""
HEAD_BATCH = 512
MANY_IMAGES = 100_000
"""From here on the settings of the paper hold: LARS, epsilon 0.05, full jitter, ResNet-50."""


def auto(
    facts: DataFacts, device: str = "auto", init: str = RANDOM, tune: str | None = None
) -> TrainConfig:
    """Choose everything from the number and size of the pictures, CPU or GPU, and the start.

    With published weights and up to 20,000 pictures the network stays as it is, and prototypes
    alone learn from its features (``--tune head``).

    Source: our own tables; with 100,000 pictures or more on a GPU, the paper's small-batch run.
    Hardware: a CPU (ten minutes at most; published weights take at least one pass) or one GPU.
    Result: see ``benchmarks/``.
    """
    if tune is None:
        tune = "head" if is_published(init) and facts.num_images <= HEAD_UP_TO else "all"
    config = _network_trained(facts, device, init)
    return _head_trained(config, facts) if tune == "head" else replace(config, tune=tune)


def _network_trained(facts: DataFacts, device: str, init: str) -> TrainConfig:
    """Return the settings that train all of the network."""
    on_gpu = is_gpu(device)
    many = on_gpu and facts.num_images >= MANY_IMAGES
    batch_size = _batch_size(facts.num_images, on_gpu=on_gpu)
    published = is_published(init)
    epochs = _epochs(facts, on_gpu=on_gpu, published=published)
    steps_per_epoch = max(facts.num_images // batch_size, 1)
    return TrainConfig(
        views=_views(facts, on_gpu=on_gpu, many=many, published=published),
        backbone=_backbone(many=many, on_gpu=on_gpu, published=published),
        init=init,
        method=SwAVConfig(
            num_prototypes=(_num_prototypes(facts.num_images),),
            head=HeadConfig(hidden_dim=2048 if many else 512),
            # tiny pictures stayed at ln K with 0.03 (benchmarks/collapse_2cpu_2026-11-22.md)
            epsilon=0.05 if many else 0.02 if _is_tiny(facts) else 0.03,
            # one epoch as published, but of a short run no more than a tenth
            freeze_steps=min(steps_per_epoch, steps_per_epoch * epochs // 10),
            queue_length="auto",
        ),
        optim=_optim(
            batch_size,
            warmup_epochs=min(epochs / 10, 10.0),
            many=many and not published,
            most=PUBLISHED_LEARNING_RATE if published else math.inf,
        ),
        epochs=epochs,
        device=device,
        precision="bf16-mixed" if on_gpu else "32-true",
    )


def _head_trained(config: TrainConfig, facts: DataFacts) -> TrainConfig:
    """Return the settings that train prototypes alone, on features made once."""
    method = SwAVConfig(
        num_prototypes=(_num_prototypes(facts.num_images),),
        head=HeadConfig(hidden_dim=512),
        queue_length="auto",
    )
    optim = OptimConfig(batch_size=min(HEAD_BATCH, _quarter(facts.num_images)))
    return head_training(replace(config, method=method, optim=optim), facts.num_images)


def _is_tiny(facts: DataFacts) -> bool:
    return min(facts.height, facts.width) < TINY_SIDE


def with_small_input(config: TrainConfig, facts: DataFacts) -> TrainConfig:
    """Return ``config`` whose published network is not shown small pictures as large ones.

    The size that its weights were published with stays where pictures are an eighth of it or more.
    """
    if config.input is None or not is_published(config.init):
        return config
    channels, *sides = config.input.input_size
    most = whole_patches(ENLARGEMENT * min(facts.height, facts.width), config.backbone.name)
    height, width = (min(side, most) for side in sides)
    return replace(config, input=replace(config.input, input_size=(channels, height, width)))


def explain(config: TrainConfig, facts: DataFacts) -> list[str]:
    """Return a line for the data and for each choice of ``auto``: what, and why."""
    usual = auto(facts, config.device, config.init, config.tune)
    usual = with_start(usual, config.init, config.tune, None)
    usual = replace(usual, input=config.input)  # no option: it follows from the backbone
    if not isinstance(config.method, SwAVConfig):  # of whose options auto says nothing
        usual = replace(usual, method=config.method)
    changed = differences(usual, config)
    where = "a GPU" if is_gpu(config.device) else "a CPU"
    size = f"{facts.height}x{facts.width}"
    lines = [f"{facts.num_images:,} pictures of about {size} pixels (height x width), on {where}"]
    for (paths, value, why), (_, usual_value, _) in zip(
        _choices(config, facts), _choices(usual, facts), strict=True
    ):
        # augmentation is a setting of the views too, and says nothing of the crops
        given = value != usual_value and any(path.startswith(paths) for path in changed)
        lines.append(f"{value} (auto takes {usual_value})" if given else f"{value}: {why}")
    return lines


class _Choice(NamedTuple):
    paths: tuple[str, ...]
    value: str
    why: str


def _choices(config: TrainConfig, facts: DataFacts) -> Iterator[_Choice]:
    """Yield what the settings of a config are in words, and why ``auto`` takes them."""
    many, head = config.optim.optimizer == "lars", config.tuning.part == "head"
    method, optim = config.method, config.optim
    side = min(facts.height, facts.width)
    yield _Choice(
        ("views.", "tune"),
        *_shown(config, side),
    )
    yield _Choice(
        ("backbone.",),
        f"backbone {config.backbone.title}",
        _why_backbone(config.init, many=many),
    )
    if isinstance(method, SwAVConfig):
        yield from _choices_of_swav(method, facts, many=many, head=head)
    yield _Choice(
        ("optim.",),
        f"{optim.optimizer} at {optim.learning_rate:g}, batch {optim.batch_size}",
        _why_optim(config.init, many=many, head=head),
    )
    yield _Choice(("epochs",), f"{config.epochs} epochs", _why_epochs(config, facts))


def _shown(config: TrainConfig, side: int) -> tuple[str, str]:
    """Return what is trained on, and why."""
    if config.tuning.part == "head":
        _, height, width = config.input.input_size if config.input else (0, 0, 0)
        seen = f" at {height}x{width}" if config.input else ""
        return (
            f"prototypes alone, on features of the frozen network{seen}",
            "it takes seconds, and features cannot get worse",
        )
    why = f"the shorter side of the pictures is about {side} pixels"
    if is_published(config.init):
        why += ", and published weights know none much smaller"
    return f"crops {config.views.description}", why


def _choices_of_swav(
    method: SwAVConfig, facts: DataFacts, *, many: bool, head: bool
) -> Iterator[_Choice]:
    prototypes = " + ".join(str(number) for number in method.num_prototypes)
    yield _Choice(
        ("method.num_prototypes",),
        f"{prototypes} prototypes",
        f"about {PROTOTYPES_PER_ROOT} times the square root of {facts.num_images:,} pictures",
    )
    yield _Choice(
        ("method.epsilon",),
        f"epsilon {method.epsilon:g}",
        _why_epsilon(facts, many=many, head=head),
    )


def _why_backbone(init: str, *, many: bool) -> str:
    if init != RANDOM:
        return f"it has the weights to start from ({init})"
    return "enough pictures for a large network" if many else "small, for the time and the data"


def _why_optim(init: str, *, many: bool, head: bool) -> str:
    if head:
        return "a head learns fast from features that stay"
    if many:
        return "as published for this batch"
    if is_published(init):
        return "more makes published weights forget what they know"
    return "a short run learns faster with AdamW"


def _why_epsilon(facts: DataFacts, *, many: bool, head: bool) -> str:
    if many or head:
        return "as published"
    return f"{'tiny' if _is_tiny(facts) else 'few'} pictures learn faster from sharp codes"


def _why_epochs(config: TrainConfig, facts: DataFacts) -> str:
    if config.tuning.part == "head":
        return f"about {HEAD_STEPS} steps, seconds beside the one pass of the network"
    if is_gpu(config.device):
        return f"by a table of the number of pictures, {facts.num_images:,}"
    row = _cpu_row(facts, published=is_published(config.init))
    seconds = facts.num_images * config.epochs / row.pictures_per_second
    minutes = f"about {max(seconds / 60, 1):.0f} min on two cores"
    if config.epochs == 1 and seconds > CPU_SECONDS:
        return f"{minutes}; even one is more than ten minutes, so {_shorter(config)}"
    return minutes


def _shorter(config: TrainConfig) -> str:
    if is_published(config.init):
        return "--tune head, which takes one pass of the network, may do"
    return "take fewer pictures or a GPU"


def _cpu_row(facts: DataFacts, *, published: bool = False) -> _CpuRow:
    if published:
        return PUBLISHED_CPU_CROPS
    side = min(facts.height, facts.width)
    return [row for row in CPU_CROPS if side >= row.from_side][-1]


def _views(facts: DataFacts, *, on_gpu: bool, many: bool, published: bool) -> ViewsConfig:
    side = min(facts.height, facts.width)
    row = _cpu_row(facts, published=published)
    large, small, num_small = row.large, row.small, 4
    if on_gpu:
        _, large, small, num_small = [row for row in GPU_CROPS if side >= row.from_side][-1]
    if published:  # such networks have seen nothing much smaller
        least = PUBLISHED_CPU_CROPS
        large = min(max(large, least.large), ENLARGEMENT * side)
        small = min(max(small, least.small), ENLARGEMENT * side)
    augment = AugmentConfig() if many else HALF_JITTER
    # the published radius is in pixels, 0.1 to 2, whatever the crop
    if large <= 64:
        augment = replace(augment, blur=0.0)  # a blur of two pixels would leave nothing
    lowest, low, split = (0.05, 0.14, 0.14) if many else (0.05, 0.2, 0.4)
    if _is_tiny(facts):
        lowest, low, split = 0.25, 0.4, 0.5
    return ViewsConfig(
        groups=(
            CropGroup(count=2, size=(large, large), scale=(low, 1.0), augment=augment),
            CropGroup(count=num_small, size=(small, small), scale=(lowest, split), augment=augment),
        )
    )


def _backbone(*, many: bool, on_gpu: bool, published: bool) -> BackboneConfig:
    if many:
        return RESNET50
    return RESNET18 if on_gpu or published else SMALL_RESNET


def _batch_size(num_images: int, *, on_gpu: bool) -> int:
    """Return a power of two that leaves at least four steps an epoch."""
    wanted = 256 if on_gpu else 128 if num_images >= 4096 else 64
    return min(wanted, _quarter(num_images))


def _quarter(num_images: int) -> int:
    """Return the largest power of two that is at most a quarter."""
    return 1 << int(math.log2(max(num_images // 4, 2)))


def _num_prototypes(num_images: int) -> int:
    return min(max(round(PROTOTYPES_PER_ROOT * math.sqrt(num_images) / 10) * 10, 10), 3000)


def _epochs(facts: DataFacts, *, on_gpu: bool, published: bool) -> int:
    if on_gpu:
        return [row.epochs for row in GPU_EPOCHS if facts.num_images >= row.from_images][-1]
    per_second = _cpu_row(facts, published=published).pictures_per_second
    affordable = CPU_SECONDS * per_second // max(facts.num_images, 1)
    return min(max(affordable, 1), CPU_MOST_EPOCHS)


def _optim(batch_size: int, *, warmup_epochs: float, many: bool, most: float) -> OptimConfig:
    """Return the optimiser; AdamW learns at ``most`` at most."""
    multiple = batch_size / 256
    if many:
        return OptimConfig(
            optimizer="lars",
            batch_size=batch_size,
            learning_rate=0.6 * multiple,
            final_learning_rate=0.0006 * multiple,
            warmup_epochs=warmup_epochs,
            weight_decay=1e-6,
        )
    return OptimConfig(
        optimizer="adamw",
        batch_size=batch_size,
        learning_rate=min(3e-3 * math.sqrt(multiple), most),
        warmup_epochs=warmup_epochs,
        weight_decay=1e-4,
    )
