"""Checks before the first step: what makes a run pointless, and what will hurt it."""

from dataclasses import replace

import numpy as np
import torch

from swav.data.loader import readable
from swav.data.sources.pictures import DataFacts, Pictures
from swav.data.views.view_distance import distance_within
from swav.engine import TrainingFacts
from swav.engine.loop import check_accumulation
from swav.recipes.options import METHODS
from swav.recipes.train_config import TrainConfig

LARGEST_ENLARGEMENT = 8
SAMPLED = 64
ALIKE = 0.9
"""Distance within pictures, of that between them, at which trainings were seen to collapse: 0.90
to 1.00 did, up to 0.86 did not (docs/log.md)."""


def check_plan(config: TrainConfig, facts: DataFacts) -> list[str]:
    """Return what will hurt the run, a sentence each.

    Raises:
        ValueError: for what makes it pointless.
    """
    if config.tuning.part != "head":  # which has no views
        _check_crops(config, facts)
    if config.method.pretext is not None:
        config.method.pretext.check(config.views)
    batch, method = config.optim.batch_size, config.method
    if facts.num_images < 2:
        raise ValueError(
            f"{facts.num_images} picture cannot be told from any other: give at least 2, better "
            "hundreds"
        )
    if facts.num_images < batch:
        raise ValueError(
            f"{facts.num_images} pictures are fewer than one batch of {batch}: use "
            f"--optim.batch-size {facts.num_images} or less, or more pictures"
        )
    check_accumulation(config.optim.accumulate, method.needs_whole_batch)
    # there is no backbone yet, and no method asks for one to know what will hurt
    return method.check(
        TrainingFacts(feature_dim=0, num_images=facts.num_images, global_batch=batch)
    )


def check_groups(config: TrainConfig, pictures: Pictures) -> list[str]:
    """Return what to know of the groups of pictures, a sentence each.

    Raises:
        ValueError: if the pictures do not have the groups that were asked for.
    """
    image_groups, num_images = config.views.image_groups(pictures), len(pictures)
    if image_groups is None:
        return []
    remarks = []
    alone = "their nearest neighbours" if config.tuning.part == "head" else "themselves"
    if image_groups.num_paired < num_images / 2:
        remarks.append(
            f"only {image_groups.num_paired} of {num_images} pictures have another one in their "
            f"group; the others are paired with {alone}"
        )
    mates = image_groups.mates_in(config.optim.batch_size)
    if config.method.has_negatives and mates >= 1:
        remarks.append(
            f"{config.method.name} tells all pictures apart, and {mates:.1f} of a batch of "
            f"{config.optim.batch_size} are on average of a picture's own group: take a method "
            f"without negatives ({', '.join(_methods_without_negatives())}) or smaller groups"
        )
    if pictures.labels is not None:
        pairs = len({*zip(image_groups.group_ids.tolist(), pictures.labels.tolist(), strict=True)})
        if pairs == len(np.unique(pictures.labels)) == len(np.unique(image_groups.group_ids)):
            remarks.append(
                "the groups are the labels, so training sees them: scores by these labels say "
                "nothing about learning without labels"
            )
    return remarks


def check_content(pictures: Pictures) -> None:
    """Raise a ValueError if all pictures of a sample are the same one, such as all black."""
    rows = np.linspace(0, len(pictures) - 1, min(len(pictures), SAMPLED)).astype(np.int64)
    _, sample = readable(pictures, rows.tolist())
    if len(sample) < 2 or not all(torch.equal(sample[0], other) for other in sample[1:]):
        return
    values = torch.unique(sample[0]).tolist()
    kind = f"every value is {values[0]}" if len(values) == 1 else "they are copies of one"
    raise ValueError(
        f"all {len(sample)} pictures that were looked at, of {len(pictures)}, are the same "
        f"({kind}): there is nothing to tell apart. Give other pictures; of arrays check the "
        "range: 0 to 1 or 0 to 255 for floats, 0 to 255 for others, or all 16 bits of uint16"
    )


def check_views(config: TrainConfig, pictures: Pictures) -> list[str]:
    """Return what to know of views that are too much alike to learn from, in a sentence."""
    large = config.views.groups[0]
    is_compared = config.method.pretext is None and config.tuning.part != "head"
    if not is_compared or config.views.group is not None or large.count < 2:
        return []
    apart = distance_within(pictures, large, seed=config.seed)
    if apart < ALIKE:
        return []
    colours_kept = replace(large, augment=replace(large.augment, jitter=0.0, grey=0.0))
    without_jitter = distance_within(pictures, colours_kept, seed=config.seed)
    remedy = (
        "--views.augment.jitter 0 --views.augment.grey 0: without colour changes it is "
        f"{without_jitter:.2f}"
        if without_jitter < ALIKE
        else "larger shares of the picture (--views.groups.0.scale 0.5 1.0), or other pictures"
    )
    return [
        f"two views of a picture are {apart:.2f} times as far apart as views of two pictures "
        f"(averaged to 4x4 cells); from about {ALIKE} on trainings collapse. Try {remedy}"
    ]


def _methods_without_negatives() -> list[str]:
    """Return the methods that compare views and no other pictures."""
    return [
        name
        for name, method in METHODS.items()
        if not method.has_negatives and method().pretext is None
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
