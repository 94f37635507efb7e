"""Is the trained network better than the one it started from? Decided without labels.

The rule and what it was fixed by are in ``docs/guard.md``.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.pictures import Pictures
from swav.engine.launch import loading_workers
from swav.evals import label_free
from swav.evals.label_free import Measures
from swav.recipes.start_network import RANDOM
from swav.recipes.train_config import TrainConfig
from swav.training.networks import build_objective, transform_of, untrained_network
from swav.training.start import open_start, transform_of_start

logger = logging.getLogger(__name__)

# provisional, until docs/guard.md has the numbers of its study
AGREEMENT_MARGIN = 0.02
STABILITY_MARGIN = 0.05
PART_MARGIN = 0.02
LEAST_OVERLAP = 0.3

Winner = Literal["start", "trained"]


class Shown(NamedTuple):
    """A network and how it is shown pictures."""

    network: nn.Module
    transform: EvalTransform


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which of two networks is the better one, and by what."""

    winner: Winner
    reason: str
    """In one sentence."""
    start: Measures
    trained: Measures
    overlap: float
    """Share of the nearest pictures that both have in common."""
    num_images: int
    """Pictures that both were shown."""

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` keeps."""
        return asdict(self)


def decide(
    start: Measures, trained: Measures, overlap: float, *, start_is_trained: bool
) -> tuple[Winner, str]:
    """Return the better network by its measures, and why in one sentence.

    The trained network loses if it is worse by one of three measures. Far from its start it also
    loses unless it finds pictures by their parts clearly better; an untrained start is no place
    to stay near.
    """
    faults = [
        f"{name} fell from {before:.2f} to {after:.2f}"
        for name, before, after, margin in (
            (
                "agreement of neighbours under augmentation",
                start.agreement,
                trained.agreement,
                AGREEMENT_MARGIN,
            ),
            ("stability of clusters", start.stability, trained.stability, STABILITY_MARGIN),
            (
                "retrieval from a part",
                start.part_retrieval,
                trained.part_retrieval,
                PART_MARGIN,
            ),
        )
        if after < before - margin
    ]
    gained = trained.part_retrieval > start.part_retrieval + PART_MARGIN
    if start_is_trained and overlap < LEAST_OVERLAP and not gained:
        faults.append(f"only {overlap:.0%} of the nearest neighbours of the start are left")
    if faults:
        return "start", f"The network is worse than its start: {'; '.join(faults)}."
    return "trained", (
        "The trained network is no worse than its start: agreement of neighbours under "
        f"augmentation {start.agreement:.2f} before, {trained.agreement:.2f} now."
    )


def compare(start: Shown, trained: Shown, pictures: Pictures, *, start_is_trained: bool) -> Verdict:
    """Return the verdict on two networks, by at most 2,000 pictures that lie evenly in the set.

    Raises:
        ValueError: if the pictures are too few.
    """
    chosen = label_free.some(pictures)
    told = [_told(each, chosen) for each in (start, trained)]
    number = len(told[0].whole)
    if number < label_free.FEWEST_PICTURES:
        raise ValueError(f"{number} readable pictures are fewer than {label_free.FEWEST_PICTURES}")
    before, after = (label_free.measures(each) for each in told)
    overlap = label_free.overlap(told[0].whole, told[1].whole)
    winner, reason = decide(before, after, overlap, start_is_trained=start_is_trained)
    return Verdict(
        winner=winner,
        reason=reason,
        start=before,
        trained=after,
        overlap=overlap,
        num_images=number,
    )


def start_of(
    config: TrainConfig,
    record: Mapping[str, Any],
    *,
    num_images: int,
    allow_factory: Collection[str] = (),
) -> Shown:
    """Return the network that a run started from, with the input that its weights know.

    Args:
        config: of the run.
        record: of the run.
        num_images: pictures it was trained on.
        allow_factory: names of factories that may build its network.

    Raises:
        ValueError: if the weights are no longer there, or are others.
    """
    if config.init == RANDOM:
        network = untrained_network(config, num_images=num_images, allow_factory=allow_factory)
        return Shown(network, transform_of(config))
    # the training has been allowed to leave some random if there are any
    start = open_start(config, allow_missing=True, allow_factory=allow_factory)
    assert start is not None, "init is not random"
    before = record.get("start") or {}
    if start.sha256 != before.get("sha256", start.sha256):
        raise ValueError(
            f"--init {config.init} no longer has the weights that the run started from"
        )
    objective = build_objective(
        config, num_images=num_images, weights=start.tensors, allow_factory=allow_factory
    )
    return Shown(objective.encoder, transform_of_start(config))


def _told(shown: Shown, pictures: Pictures) -> label_free.Told:
    device = next(shown.network.parameters()).device
    return label_free.encoded(
        shown.network,
        shown.transform,
        pictures,
        device=device,
        workers=loading_workers(device),
    )
