"""What a training is going to do, in what time and memory: measured on a few pictures."""

import shlex
import sys
import time
from collections.abc import Collection

import torch
from torch import Tensor

from swav.data.loader import StepViews
from swav.data.sources.pictures import DataFacts, Pictures
from swav.engine import Clock, Objective
from swav.engine.launch import is_gpu
from swav.recipes import explain
from swav.recipes.start_network import LITE0, RANDOM
from swav.recipes.train_config import TrainConfig
from swav.training.networks import build_objective, check_sizes
from swav.training.start import StartWeights

FEW_PICTURES = 20_000
"""Below, features of published weights are better than what a CPU can train from scratch."""
PROBE_PIXELS = 500_000
"""Of the views that a plan is measured on: tens of small pictures, or a few large ones."""


def print_plan(
    config: TrainConfig,
    facts: DataFacts,
    pictures: Pictures,
    *,
    start: StartWeights | None = None,
    allow_factory: Collection[str] = (),
) -> None:
    """Print what a training would do, how long it would take here and in how much memory.

    Measures a forward and backward pass over a few pictures; nothing is written.
    """
    objective = build_objective(
        config,
        num_images=facts.num_images,
        weights=None if start is None else start.tensors,
        allow_factory=allow_factory,
        to_train=True,
    )
    check_sizes(config, objective)
    steps_per_epoch = facts.num_images // config.optim.batch_size
    total_steps = steps_per_epoch * config.epochs
    number = _probe_pictures(config, facts)
    seconds, activations = _probe(config, objective, pictures, number)
    num_parameters = sum(parameter.numel() for parameter in objective.parameters())
    micro_batch = config.optim.batch_size // config.optim.accumulate
    slots = 2 if config.optim.optimizer == "adamw" else 1
    memory = 4 * num_parameters * (2 + slots) + activations * micro_batch
    num_views = config.views.num_views
    duration = _duration(seconds * total_steps * config.optim.batch_size)
    lines = [
        *explain(config, facts),
        *([] if start is None else [start.summary]),
        *_better_start(config, facts),
        f"{num_parameters / 1e6:.2f} million parameters, method {config.method.name}",
        f"{config.epochs} epochs of {steps_per_epoch} steps = {total_steps} steps of "
        f"{config.optim.batch_size} pictures, {num_views} view{'s' * (num_views > 1)} each",
        f"time on this machine's CPU: about {duration} "
        f"({1 / seconds:.0f} pictures/s in a probe of {number}, loading not counted)",
        f"memory for training, one rank: about {memory / 2**30:.1f} GiB; pictures in memory: "
        f"{'yes' if facts.in_memory else 'no'}",
    ]
    print("\n".join(lines), file=sys.stdout)


def _better_start(config: TrainConfig, facts: DataFacts) -> list[str]:
    """Return a line on published weights where a run from random ones would do worse."""
    few = facts.num_images < FEW_PICTURES and not is_gpu(config.device)
    if config.init != RANDOM or not few or config.data.channels != 3:
        return []
    command = shlex.join(["swav", "train", config.data.data, "--init", LITE0])
    return [f"with so few pictures on a CPU published weights give better features: {command}"]


def _probe_pictures(config: TrainConfig, facts: DataFacts) -> int:
    pixels = sum(group.count * group.size[0] * group.size[1] for group in config.views.groups)
    return max(2, min(PROBE_PIXELS // pixels, config.optim.batch_size, facts.num_images))


def _probe(
    config: TrainConfig, objective: Objective, pictures: Pictures, number: int
) -> tuple[float, float]:
    """Return seconds and bytes of activations, both for each of ``number`` pictures."""
    views = StepViews(
        pictures,
        config.views,
        global_batch=number,
        seed=config.seed,
        pretext=config.method.pretext,
    )
    batch = views.batch(0)
    clock = Clock(step=0, epoch=0, steps_per_epoch=1, total_steps=1, images=0)
    num_bytes = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal num_bytes
        num_bytes += tensor.numel() * tensor.element_size()
        return tensor

    objective.prepare([batch])
    objective.before_step(clock)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        objective(batch, clock).loss.backward()
    started = time.monotonic()
    objective(batch, clock).loss.backward()
    return (time.monotonic() - started) / number, num_bytes / number


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
