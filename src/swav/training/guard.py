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
from swav.engine import Objective
from swav.engine.launch import loading_workers
from swav.evals import label_free
from swav.evals.label_free import Measures, Told
from swav.recipes.start_network import RANDOM
from swav.recipes.train_config import TrainConfig
from swav.training.networks import build_objective, transform_of, untrained_network
from swav.training.start import open_start, transform_of_start

logger = logging.getLogger(__name__)

# provisional, until docs/guard.md has the numbers of its study
MARGINS: Mapping[str, tuple[str, float]] = {
    "agreement": ("agreement of neighbours under augmentation", 0.02),
    "stability": ("stability of clusters", 0.05),
    "part_retrieval": ("retrieval from a part", 0.02),
}
"""In words, and how far each measure may fall."""
GAIN = 0.02
"""Of retrieval from a part, which excuses that neighbours are others."""
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
    name_of_start = "the weights it started from" if start_is_trained else "the untrained network"
    before, after = asdict(start), asdict(trained)
    faults = [
        f"{title} fell from {before[name]:.2f} to {after[name]:.2f}"
        for name, (title, margin) in MARGINS.items()
        if after[name] < before[name] - margin
    ]
    gained = trained.part_retrieval > start.part_retrieval + GAIN
    if start_is_trained and overlap < LEAST_OVERLAP and not gained:
        faults.append(f"only {overlap:.0%} of the nearest neighbours of the start are left")
    if faults:
        return "start", (
            f"The trained network is worse than {name_of_start}, told without labels: "
            f"{'; '.join(faults)}."
        )
    return "trained", (
        f"The trained network is no worse than {name_of_start}, told without labels: agreement of "
        f"neighbours under augmentation {start.agreement:.2f} before, {trained.agreement:.2f} now."
    )


def compare(start: Shown, trained: Shown, pictures: Pictures, *, start_is_trained: bool) -> Verdict:
    """Return the verdict on two networks, by at most 2,000 pictures that lie evenly in the set.

    Raises:
        ValueError: if the pictures are too few.
    """
    chosen = label_free.some(pictures)
    return verdict_on(tell(start, chosen), tell(trained, chosen), start_is_trained=start_is_trained)


def tell(shown: Shown, pictures: Pictures) -> Told:
    """Return the features that a network is judged by."""
    device = next(shown.network.parameters()).device
    return label_free.encoded(
        shown.network,
        shown.transform,
        pictures,
        device=device,
        workers=loading_workers(device),
    )


def verdict_on(start: Told, trained: Told, *, start_is_trained: bool) -> Verdict:
    """Return the verdict by features of the same pictures.

    Raises:
        ValueError: if the pictures are too few.
    """
    number = len(start.whole)
    if number < label_free.FEWEST_PICTURES:
        raise ValueError(f"{number} readable pictures are fewer than {label_free.FEWEST_PICTURES}")
    before, after = label_free.measures(start), label_free.measures(trained)
    overlap = label_free.overlap(start.whole, trained.whole)
    winner, reason = decide(before, after, overlap, start_is_trained=start_is_trained)
    return Verdict(
        winner=winner,
        reason=reason,
        start=before,
        trained=after,
        overlap=overlap,
        num_images=number,
    )


def judged(
    config: TrainConfig,
    objective: Objective,
    pictures: Pictures,
    record: Mapping[str, Any],
    *,
    allow_factory: Collection[str] = (),
) -> dict[str, Any]:
    """Return what ``run.json`` keeps of the comparison, with ``skipped`` where there is none.

    It is made where ``evaluate_at_end`` is false too: that leaves out scores, and this is about
    what the run hands out. It costs six passes of at most 2,000 pictures, less than an epoch.

    Args:
        config: of the run.
        objective: trained.
        pictures: that it was trained on.
        record: of the run.
        allow_factory: names of factories that may build the network that it started from.
    """
    try:
        start = start_of(config, record, num_images=len(pictures), allow_factory=allow_factory)
        start.network.to(next(objective.encoder.parameters()).device)
        trained = Shown(objective.encoder, transform_of(config))
        verdict = compare(start, trained, pictures, start_is_trained=config.init != RANDOM)
    except (OSError, ValueError) as error:  # the start may be a file that has gone since
        logger.warning("the network is not compared with its start: %s", error)
        return {"skipped": str(error), "remedy": remedy(config)}
    return {**verdict.record, "remedy": remedy(config)}


def hand_out(objective: Objective, guard: Mapping[str, Any]) -> Objective:
    """Return what the outputs of a run are made of: the trained network, also where it lost.

    Of a run from scratch that stays so, since an untrained network is no result.

    Args:
        objective: trained.
        guard: of the run's record.
    """
    del guard
    return objective


def remedy(config: TrainConfig) -> str:
    """Return what to do about a trained network that lost, in a sentence or two."""
    kept = "The run's model is the trained network all the same."
    if config.init != RANDOM:
        return (
            f"{kept} Take the weights of --init {config.init} as they are, or train them less: "
            "a lower --optim.learning-rate, fewer --epochs."
        )
    # published weights are of pictures in colour
    published = (
        f"`swav train {config.data.data} --init lite0` (or `--init timm`) starts from published "
        "weights; from scratch"
        if config.data.channels == 3
        else "From scratch"
    )
    return (
        f"{kept} {published}, more --epochs or weaker changes of colour "
        "(--views.augment.jitter 0.4) may help."
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
