"""A training small enough to be run dozens of times: 64 drawn pictures, thousands of weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import nn

from swav.data.sources.open import SourceConfig, from_arrays
from swav.data.sources.pictures import Pictures
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine import TrainingFacts
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
from swav.recipes.train_config import TrainConfig

NUM_PICTURES, NUM_CLASSES, SIDE = 64, 4, 20
BATCH_SIZE = 16

WITHOUT_BATCHNORM = BackboneConfig(
    name="convnext_atto",
    args={"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "patch_size": 2, "output_stride": 8},
)
WITH_BATCHNORM = BackboneConfig(
    name="resnet10t",
    args={"channels": [8, 8, 16, 16], "stem_width": 8, "zero_init_last": False},
)

_HEAD = HeadConfig(hidden_dim=16, embed_dim=8, batchnorm=False)
_EXPANDER = replace(EXPANDER, hidden_dim=16, embed_dim=8, batchnorm=False)

TINY_METHODS: dict[type[MethodConfig], MethodConfig] = {
    SwAVConfig: SwAVConfig(num_prototypes=(12, 7), head=_HEAD, freeze_steps=2),
    DeepClusterConfig: DeepClusterConfig(num_prototypes=(9, 5, 7), head=_HEAD),
    SeLaConfig: SeLaConfig(num_prototypes=(9, 5, 7), head=_HEAD),
    SimCLRConfig: SimCLRConfig(head=_HEAD),
    MoCoConfig: MoCoConfig(head=_HEAD, momentum=0.9),
    BYOLConfig: BYOLConfig(momentum=0.9, head=_HEAD),
    InstDiscConfig: InstDiscConfig(head=HeadConfig(hidden_dim=0, embed_dim=8), num_negatives=40),
    BarlowConfig: BarlowConfig(head=_EXPANDER),
    VICRegConfig: VICRegConfig(head=_EXPANDER),
    RotationConfig: RotationConfig(),
    JigsawConfig: JigsawConfig(num_permutations=6, tile_size=16, tile_dim=8, batchnorm=False),
    RelativeConfig: RelativeConfig(
        gap=0.2, tile_size=16, hidden_dim=16, batchnorm=False, dropout=0.0
    ),
    PIRLConfig: PIRLConfig(
        head=HeadConfig(hidden_dim=0, embed_dim=8), num_negatives=24, tile_size=16
    ),
    CPCConfig: CPCConfig(
        grid=4, last_step=2, context_blocks=2, hidden_dim=8, embed_dim=8, scale=1.0, tile_size=16
    ),
}
"""Every method at a size for tests, without BatchNorm in its head."""

METHOD_CLASSES: tuple[type[MethodConfig], ...] = get_args(MethodConfig) or (MethodConfig,)


def tiny_facts(backbone: nn.Module) -> TrainingFacts:
    """Return the facts of a training on the drawn pictures."""
    return TrainingFacts(
        feature_dim=int(backbone.num_features),  # type: ignore[arg-type]
        num_images=NUM_PICTURES,
        global_batch=BATCH_SIZE,
    )


def drawn(number: int = NUM_PICTURES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures (number, 20, 20, 3) of coloured stripes, and their labels: the colour."""
    generator = np.random.default_rng(seed)
    labels = np.arange(number) % NUM_CLASSES
    colours = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 220], [210, 200, 50]])
    stripes = np.sin(np.arange(SIDE) * generator.uniform(0.4, 2.5, (number, 1)))[:, None, :, None]
    noise = generator.normal(0, 12, (number, SIDE, SIDE, 3))
    pictures = colours[labels][:, None, None] * (0.7 + 0.3 * stripes) + noise
    return pictures.clip(0, 255).astype(np.uint8), labels


def tiny_pictures() -> Pictures:
    """Return the drawn pictures with their labels, held in memory."""
    return from_arrays(*drawn())


def write_pictures(folder: Path) -> str:
    """Write the drawn pictures with their labels to a file, and return its path as DATA."""
    pictures, labels = drawn()
    np.savez(folder / "drawn.npz", pictures=pictures, labels=labels)
    return str(folder / "drawn.npz")


def tiny_config(data: str = "arrays", **changes: Any) -> TrainConfig:
    """Return a whole training of four steps an epoch, on one thread."""
    augment = AugmentConfig(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, blur=0.0)
    groups = (
        CropGroup(count=2, size=(20, 20), scale=(0.3, 1.0), augment=augment),
        CropGroup(count=2, size=(16, 16), scale=(0.1, 0.4), augment=augment),
    )
    is_pretext = changes.get("method", TINY_METHODS[SwAVConfig]).pretext is not None
    config = TrainConfig(
        data=SourceConfig(data=data),
        views=ViewsConfig(groups=groups[:1] if is_pretext else groups),  # of which tiles are made
        backbone=WITHOUT_BATCHNORM,
        method=TINY_METHODS[SwAVConfig],
        optim=OptimConfig(
            optimizer="adamw", batch_size=BATCH_SIZE, learning_rate=2e-3, warmup_epochs=1
        ),
        epochs=5,
        device="cpu",
        threads=1,
        workers=0,
        log_every=1,
        save_every=1,
    )
    return replace(config, **changes)
