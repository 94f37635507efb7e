"""What a training is going to do: checks before the first step, and a plan with time and memory."""

import sys
import time
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from swav.data.loader import StepViews
from swav.data.sources.pictures import DataFacts, Pictures
from swav.data.views.view_distance import distance_within
from swav.engine import Clock, Objective, TrainingFacts
from swav.engine.loop import check_accumulation
from swav.recipes import explain
from swav.recipes.train_config import TrainConfig
from swav.training.trained_run import build_objective

LARGEST_ENLARGEMENT = 8
TOLD_APART = ("simclr", "moco", "instdisc", "pirl")
"""Methods that take every other picture for a negative, pictures of the same group too."""
ALIKE = 0.9
"""Distance within pictures, of that between them, at which trainings were seen to collapse: 0.90
to 1.00 did, up to 0.86 did not (docs/log.md)."""
PROBE_PIXELS = 500_000
"""Of the views that a plan is measured on: tens of small pictures, or a few large ones."""


def check_plan(config: TrainConfig, facts: DataFacts) -> list[str]:
    """Return what will hurt the run, a sentence each.

    Raises:
        ValueError: for what makes it pointless.
    """
    _check_crops(config, facts)
    if config.method.pretext is not None:
        config.method.pretext.check(config.views)
    batch, method = config.optim.batch_size, config.method
    if facts.num_images < batch:
        raise ValueError(
            f"{facts.num_images} pictures are fewer than one batch of {batch}: use "
            f"--optim.batch-size {max(2, facts.num_images)} or less, or more pictures"
        )
    check_accumulation(config.optim.accumulate, method.needs_whole_batch)
    # there is no backbone yet, and no method asks for one to know what will hurt
    return method.check(
        TrainingFacts(feature_dim=0, num_images=facts.num_images, global_batch=batch)
    )


def check_groups(config: TrainConfig, pictures: Pictures) -> list[str]:
    """Return what to know of the groups that are positives, a sentence each.

    Raises:
        ValueError: if the pictures do not have the groups that were asked for.
    """
    positives, num_images = config.data.positives(pictures), len(pictures)
    if positives is None:
        return []
    remarks = []
    if positives.num_paired < num_images / 2:
        remarks.append(
            f"only {positives.num_paired} of {num_images} pictures have another one in their "
            "group; the others are paired with themselves"
        )
    mates = positives.mates_in(config.optim.batch_size)
    if config.method.name in TOLD_APART and mates >= 1:
        remarks.append(
            f"{config.method.name} tells all pictures apart, and {mates:.1f} of a batch of "
            f"{config.optim.batch_size} are on average of a picture's own group: take a method "
            "without negatives (swav, byol, barlow, vicreg) or smaller groups"
        )
    if pictures.labels is not None:
        pairs = len({*zip(positives.groups.tolist(), pictures.labels.tolist(), strict=True)})
        if pairs == len(np.unique(pictures.labels)) == len(np.unique(positives.groups)):
            remarks.append(
                "the groups are the labels, so training sees them: scores by these labels say "
                "nothing about learning without labels"
            )
    return remarks


def check_views(config: TrainConfig, pictures: Pictures) -> list[str]:
    """Return what to know of views that are too much alike to learn from, in a sentence."""
    large = config.views.groups[0]
    if config.method.pretext is not None or config.data.group is not None or large.count < 2:
        return []
    apart = distance_within(pictures, large, seed=config.seed)
    if apart < ALIKE:
        return []
    colours_kept = replace(large, augment=replace(large.augment, jitter=0.0, grey=0.0))
    without_jitter = distance_within(pictures, colours_kept, seed=config.seed)
    remedy = (
        "--views.groups.0.augment.jitter 0, --views.groups.0.augment.grey 0 and the same for each "
        f"group of crops: without them it is {without_jitter:.2f}"
        if without_jitter < ALIKE
        else "larger shares of the picture (--views.groups.0.scale 0.5 1.0), or other pictures"
    )
    return [
        f"two views of a picture are {apart:.2f} times as far apart as views of two pictures "
        f"(averaged to 4x4 cells); from about {ALIKE} on trainings collapse. Try {remedy}"
    ]


def _check_crops(config: TrainConfig, facts: DataFacts) -> None:
    side = min(facts.height, facts.width)
    for group in config.views.groups:
        if max(group.size) > LARGEST_ENLARGEMENT * side:
            raise ValueError(
                f"crops {group.description} are more than {LARGEST_ENLARGEMENT} times the median "
                f"side of the pictures, {side} pixels: use --crops with sizes up to "
                f"{LARGEST_ENLARGEMENT * side}, or larger pictures"
            )


def print_plan(
    config: TrainConfig,
    facts: DataFacts,
    pictures: Pictures,
    *,
    allow_factory: Collection[str] = (),
) -> None:
    """Print what a training would do, how long it would take here and in how much memory.

    Measures a forward and backward pass over a few pictures; nothing is written.
    """
    objective = build_objective(config, num_images=facts.num_images, allow_factory=allow_factory)
    steps_per_epoch = facts.num_images // config.optim.batch_size
    total_steps = steps_per_epoch * config.epochs
    number = _probe_pictures(config, facts)
    seconds, activations = _probe(config, objective, pictures, number)
    num_parameters = sum(parameter.numel() for parameter in objective.parameters())
    share = config.optim.batch_size // config.optim.accumulate
    slots = 2 if config.optim.optimizer == "adamw" else 1
    memory = 4 * num_parameters * (2 + slots) + activations * share
    duration = _duration(seconds * total_steps * config.optim.batch_size)
    lines = [
        *explain(config, facts),
        f"{num_parameters / 1e6:.2f} million parameters, method {config.method.name}",
        f"{config.epochs} epochs of {steps_per_epoch} steps = {total_steps} steps of "
        f"{config.optim.batch_size} pictures, {config.views.num_views} views each",
        f"time on this machine's CPU: about {duration} "
        f"({1 / seconds:.0f} pictures/s in a probe of {number}, loading not counted)",
        f"memory for training, one rank: about {memory / 2**30:.1f} GiB; pictures in memory: "
        f"{'yes' if facts.in_memory else 'no'}",
    ]
    print("\n".join(lines), file=sys.stdout)


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
