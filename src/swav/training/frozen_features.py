"""``--tune head``: features of the network that a run starts from, made once, and their batches."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from swav.config import UsageError
from swav.data.feature_loader import FeatureSet, StepFeatures
from swav.data.sources.groups import ImageGroups
from swav.data.sources.pictures import Pictures
from swav.evals import Features
from swav.evals.harness.cache import cached_in
from swav.evals.harness.eval_data import one_set
from swav.evals.harness.subject import Subject
from swav.ops.neighbours import nearest
from swav.recipes.options import METHODS
from swav.recipes.train_config import TrainConfig
from swav.run_folder import layout
from swav.training.machine import num_workers
from swav.training.networks import transform_of

logger = logging.getLogger(__name__)

NEIGHBOURS = 10
"""Nearest pictures that count as views of each: of clothes and CIFAR-10 as good as 5, of digits
not quite (docs/log.md)."""
PICTURES_PER_NEIGHBOUR = 20
"""At least: of 100 pictures the tenth nearest is seldom alike."""


def check_head(config: TrainConfig) -> None:
    """Raise a UsageError if a method cannot learn from the features of a frozen network."""
    if config.method.learns_from_features:
        return
    able = ", ".join(name for name, method in METHODS.items() if method.learns_from_features)
    raise UsageError(
        "--tune head trains prototypes on the features of a frozen network, and "
        f"{config.method.title} learns from the pictures themselves: give --method one of {able}, "
        "or --tune last:N or all"
    )


def frozen_features(
    backbone: nn.Module, pictures: Pictures, config: TrainConfig, folder: Path
) -> Features:
    """Return the features of a network that stays as it is, kept in the run folder."""
    subject = Subject(
        one_set(pictures),
        backbone,
        transform_of(config),
        cache=cached_in(folder / layout.FEATURES),
        workers=num_workers(config),
    )
    return subject.train_features


def step_features(
    backbone: nn.Module, pictures: Pictures, config: TrainConfig, folder: Path
) -> StepFeatures:
    """Return the batches of a training on features, which take one pass of the network.

    Every rank makes all of them, as each needs the neighbours of its pictures.
    """
    logger.info("features of %s pictures, by the network of the start", f"{len(pictures):,}")
    features = frozen_features(backbone, pictures, config, folder)
    return StepFeatures(
        replace(feature_set(features.values), image_groups=_groups(config, pictures, features)),
        global_batch=config.optim.batch_size,
        accumulate=config.optim.accumulate,
        seed=config.seed,
    )


def _groups(config: TrainConfig, pictures: Pictures, features: Features) -> ImageGroups | None:
    """Return the groups of the pictures that could be read, None if the config has no groups."""
    if len(features.values) < len(pictures):
        are_read = set(features.names)
        rows = [row for row, name in enumerate(pictures.names) if name in are_read]
        pictures = pictures.subset(np.array(rows, dtype=np.int64))
    return config.views.image_groups(pictures)


def feature_set(values: Float[Tensor, "images features"]) -> FeatureSet:
    """Return features with the nearest neighbours of each, fewer where there are few pictures."""
    number = max(1, min(NEIGHBOURS, len(values) // PICTURES_PER_NEIGHBOUR))
    found = nearest(values, values, num_neighbours=number, leave_one_out=True)
    return FeatureSet(values, found.indices)
