"""Training on from weights: what is frozen, what learns slower, and from which step on."""

import logging

from torch import nn

from swav.engine import Objective
from swav.engine.optim import LateLayers
from swav.nn.batchnorm import batchnorms, keep_statistics
from swav.nn.layer_groups import Grouped, freeze_all_but, layer_rates
from swav.recipes.start_network import RANDOM
from swav.recipes.train_config import TrainConfig

logger = logging.getLogger(__name__)

BATCH_FOR_STATISTICS = 256
"""Pictures of a step from which on BatchNorm statistics of the backbone learn: those of smaller
batches are noisier than what the weights came with."""
HEAD_SHARE = 10
"""The head alone learns for one in so many steps: a random one would pull at all that is known."""


def freeze(backbone: nn.Module, config: TrainConfig) -> None:
    """Freeze what a training from weights leaves as it is; a random start has nothing to keep.

    Before a method is built around it: its copies of the backbone are then alike.

    Raises:
        ValueError: if there are not so many stages.
    """
    if config.init == RANDOM:
        return
    if config.tuning.part == "head":
        backbone.requires_grad_(requires_grad=False)
    if config.tuning.part == "last":
        try:
            freeze_all_but(backbone, config.tuning.num_stages)
        except ValueError as error:
            raise ValueError(f"--tune {config.tuning}: {error}") from error
    if config.tuning.part == "head" or config.optim.batch_size < BATCH_FOR_STATISTICS:
        for module in batchnorms(backbone):
            keep_statistics(module)


def late_layers(objective: Objective, config: TrainConfig, *, total_steps: int) -> LateLayers:
    """Return the rates of the backbone's parameters, and the step from which on they learn.

    A run of one's own counts as much as published weights: its head is not taken over, so the new
    one is as random, and its first layers are as general.
    """
    if config.init == RANDOM or config.tuning.part == "head":
        return LateLayers()
    # every method calls it so, and its copies of it are not trained
    backbone = objective.get_submodule("backbone")
    rates = layer_rates(backbone, config.optim.layer_decay)
    layers, first = len(set(rates.values())), total_steps // HEAD_SHARE
    logger.info(
        "the head alone learns until step %d; then %s, each layer (%d%s) at %g times the rate of "
        "the next%s",
        first,
        config.tuning.title,
        layers,
        "" if isinstance(backbone, Grouped) else ": the network has no group_matcher",
        config.optim.layer_decay,
        _on_statistics(backbone, config),
    )
    return LateLayers(
        rates={f"backbone.{name}": rate for name, rate in rates.items()}, from_step=first
    )


def _on_statistics(backbone: nn.Module, config: TrainConfig) -> str:
    batch_size = config.optim.batch_size
    if batch_size >= BATCH_FOR_STATISTICS or not any(batchnorms(backbone)):
        return ""
    return (
        f"; BatchNorm statistics stay (a batch of {batch_size} is less than {BATCH_FOR_STATISTICS})"
    )
