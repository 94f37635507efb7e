"""The network that a run started from, with clusters: its model where the trained one is worse."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from swav.config import to_dict
from swav.data.batch import AnyBatch
from swav.data.loader import loader
from swav.data.sources.pictures import Pictures
from swav.engine import Objective, fit
from swav.engine.launch import launch
from swav.recipes.head_training import head_training
from swav.recipes.train_config import TrainConfig
from swav.run_folder import layout
from swav.run_folder.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from swav.run_folder.result import installed_versions
from swav.run_folder.state import flatten
from swav.training.frozen_features import step_features
from swav.training.networks import build_objective
from swav.training.start import Before
from swav.training.trained_run import handed_out_config, restored

logger = logging.getLogger(__name__)


def start_with_clusters(
    before: Before, pictures: Pictures, *, step: int
) -> tuple[Objective, TrainConfig]:
    """Return the start of a run with clusters, and the run's config with its input.

    It is made once, and kept in a folder of the run beside the checkpoints of the training.

    Args:
        before: the networks that the run began with.
        pictures: that it was trained on.
        step: of the trained network that it is handed out for.

    Raises:
        ValueError: if the start is no longer there.
    """
    folder = before.folder / layout.HANDED_OUT
    checkpoint = _kept(folder, step)
    if checkpoint is None:
        checkpoint = _made(before, pictures, folder, step=step)
    objective = restored(
        before.config,
        checkpoint,
        num_images=before.num_images,
        device=before.device,
        allow_factory=before.allow_factory,
    )
    return objective, handed_out_config(before.config, checkpoint)


def _kept(folder: Path, step: int) -> Checkpoint | None:
    try:
        checkpoint = newest_checkpoint(folder)
    except CheckpointError as error:
        logger.warning("%s is made again: %s", folder, error)
        return None
    return checkpoint if checkpoint is not None and checkpoint.step == step else None


def _made(before: Before, pictures: Pictures, folder: Path, *, step: int) -> Checkpoint:
    """Train clusters on the start if the method has any, and save both."""
    start = before.start
    assert start is not None, "a random start is not handed out"
    config = head_training(replace(before.config, input=start.transform), before.num_images)
    objective = build_objective(
        config,
        num_images=before.num_images,
        weights=start.network.state_dict(),
        allow_factory=before.allow_factory,
        to_train=True,
    ).to(before.device)
    if config.method.learns_from_features:
        _train_head(objective, config, pictures, before.folder)
    # without state: nothing is to be trained further
    optimizer = config.optim.build(objective)
    tensors = flatten(objective.state_dict(), optimizer, objective.named_parameters())
    meta = {
        "step": step,
        "input": to_dict(start.transform),
        "versions": dict(installed_versions()),
    }
    return load_checkpoint(save_checkpoint(folder, step=step, tensors=tensors, meta=meta))


def _train_head(
    objective: Objective, config: TrainConfig, pictures: Pictures, folder: Path
) -> None:
    views = step_features(objective.encoder, pictures, config, folder)
    device = next(objective.encoder.parameters()).device
    clock = config.first_clock(views.steps_per_epoch)
    logger.info("clusters are trained on these features, in %d steps", clock.total_steps)

    def batches(number: int) -> Iterator[AnyBatch]:
        return loader(views, start_step=0, total_steps=number, workers=0, device=device)

    objective.train()
    objective.prepare(batches(views.steps_per_epoch))
    steps = fit(
        objective,
        batches(clock.total_steps),
        config.optim.build(objective, objective.lr_multipliers),
        clock,
        learning_rate=config.optim.learning_rate_at,
        # threads as they are: launch would set them, and gradients differ in bits between 1 and 2
        fabric=launch(device=str(device), threads=torch.get_num_threads()),
        accumulate=config.optim.accumulate,
        seed=config.seed,
    )
    for _ in steps:
        pass
