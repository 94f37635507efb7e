"""The loop of every evaluation that trains something: rates by group, steps that can be resumed."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from swav.data.batch import AnyBatch
from swav.engine import Clock, Objective, fit
from swav.engine.launch import launch
from swav.engine.loop import due
from swav.run_folder.checkpoint import newest_checkpoint, save_checkpoint
from swav.run_folder.state import flatten, restore

logger = logging.getLogger(__name__)

SAVES_PER_TRAINING = 20


def train_objective(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterable[AnyBatch]],
    rates: Callable[[Clock], Sequence[float]],
    *,
    steps_per_epoch: int,
    total_steps: int,
    seed: int,
    clip_norm: float | None = None,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
) -> list[float]:
    """Train in place to the last step, and leave the objective in evaluation mode.

    Args:
        objective: what to train.
        optimizer: of its parameters, one group for each rate.
        batches: from the first step to the batches from there on.
        rates: learning rate of every group at a step.
        steps_per_epoch: after which the clock counts an epoch.
        total_steps: where the training ends.
        seed: of dropout.
        clip_norm: gradients are scaled down to this norm.
        device: where to compute.
        folder: checkpoints go there, and an interrupted training goes on from there.

    Returns:
        The loss of every step done here.
    """
    clock = Clock(0, 0, steps_per_epoch=steps_per_epoch, total_steps=total_steps, images=0)
    if folder is not None:
        clock = _continued(objective.to(device), optimizer, clock, folder)
    every = max(clock.total_steps // SAVES_PER_TRAINING, 1)
    losses = []
    # threads as they are: launch would set them, and gradients differ in bits between 1 and 2
    fabric = launch(device=str(device), threads=torch.get_num_threads())
    _set(optimizer, rates(clock))
    steps = fit(
        objective,
        batches(clock.step),
        optimizer,
        clock,
        fabric=fabric,
        clip_norm=clip_norm,
        seed=seed,
    )
    for now, output in steps:
        losses.append(float(output.loss))
        _set(optimizer, rates(now))
        if due(now, every):
            logger.info("step %d of %d: loss %.4f", now.step, now.total_steps, losses[-1])
            if folder is not None:
                _save(objective, optimizer, now, folder)
    objective.eval()
    return losses


def step_rate(height: float, done: float, drops: Sequence[float], factor: float) -> float:
    """Return the rate after the share ``done`` of a training, times ``factor`` at each drop."""
    # 1e-9: a step that rounding puts just before its drop has reached it
    passed = sum(done >= drop - 1e-9 for drop in drops)
    return float(height * factor**passed)


def _set(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _continued(
    objective: Objective, optimizer: torch.optim.Optimizer, clock: Clock, folder: Path
) -> Clock:
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        return clock
    restore(checkpoint.tensors, objective, optimizer)
    return replace(clock, **checkpoint.meta)


def _save(
    objective: Objective, optimizer: torch.optim.Optimizer, clock: Clock, folder: Path
) -> None:
    tensors = flatten(objective.state_dict(), optimizer, objective.named_parameters())
    # rates are a function of the step, so they are not state
    position = {"step": clock.step, "epoch": clock.epoch, "images": clock.images}
    save_checkpoint(folder, step=clock.step, tensors=tensors, meta=position)
