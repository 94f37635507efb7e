"""Is the trained network better than the one it started from? Decided without labels.

The rule and what it was fixed by are in ``docs/guard.md``.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from swav.data.sources.pictures import Pictures
from swav.engine.launch import loading_workers
from swav.evals import label_free
from swav.evals.harness.subject import Shown
from swav.evals.label_free import Measures, Told
from swav.recipes.start_network import RANDOM
from swav.recipes.train_config import TrainConfig
from swav.training.networks import transform_of
from swav.training.start import Before

logger = logging.getLogger(__name__)

# by the study in docs/guard.md: stability, effective rank and overlap with the start's neighbours
# did not tell better networks from worse ones, and have no say
MARGINS: Mapping[str, tuple[str, float]] = {
    "agreement": ("agreement of neighbours under augmentation", 0.02),
    "part_retrieval": ("retrieval from a part", 0.02),
}
"""In words, and how far each measure may fall."""

Winner = Literal["start", "trained"]


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


def decide(start: Measures, trained: Measures, *, start_is_trained: bool) -> tuple[Winner, str]:
    """Return the better network by its measures, and why in one sentence.

    The trained network loses if it is worse by one of two measures. Each alone can be fooled.
    """
    name_of_start = "the weights it started from" if start_is_trained else "the untrained network"
    before, after = asdict(start), asdict(trained)
    faults = [
        f"{title} fell from {before[name]:.2f} to {after[name]:.2f}"
        for name, (title, margin) in MARGINS.items()
        if after[name] < before[name] - margin
    ]
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
    """Return the verdict on two networks, by at most 1,000 pictures that lie evenly in the set.

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
    winner, reason = decide(before, after, start_is_trained=start_is_trained)
    return Verdict(
        winner=winner,
        reason=reason,
        start=before,
        trained=after,
        overlap=overlap,
        num_images=number,
    )


def judged(
    config: TrainConfig, trained: nn.Module, pictures: Pictures, before: Before
) -> dict[str, Any]:
    """Return what ``run.json`` keeps of the comparison, with ``skipped`` where there is none.

    It is made where ``evaluate_at_end`` is false too: that leaves out scores, and this is about
    what the run hands out. It costs six passes of at most 1,000 pictures, less than an epoch.

    Args:
        config: of the run.
        trained: network.
        pictures: that it was trained on.
        before: the networks that the run began with.
    """
    if config.tuning.part == "head":
        return {"skipped": "the network is that of the start"}
    shown = Shown(trained, transform_of(config))
    try:
        verdict = compare(before.network, shown, pictures, start_is_trained=config.init != RANDOM)
    except (OSError, ValueError) as error:  # the start may be a file that has gone since
        logger.warning("the network is not compared with its start: %s", error)
        return concluded(config, {"skipped": str(error)})
    return concluded(config, verdict.record)


def concluded(config: TrainConfig, guard: Mapping[str, Any]) -> dict[str, Any]:
    """Return a comparison with what follows from it: which network is handed out, and advice.

    Of a run from scratch it is the trained one, since an untrained network is no result.
    """
    if config.tuning.part == "head":
        return dict(guard)
    lost = guard.get("winner") == "start" and config.init != RANDOM
    handed_out: Winner = "start" if lost and config.keep == "better" else "trained"
    return {
        **guard,
        "handed_out": handed_out,
        "statement": _statement(config) if handed_out == "start" else "",
        "remedy": _remedy(config, handed_out),
    }


def _statement(config: TrainConfig) -> str:
    clusters = (
        "clusters trained on it"
        if config.method.learns_from_features
        else "clusters by k-means of its features"
    )
    return (
        f"The model of this run is the network that it started from (--init {config.init}), with "
        f"{clusters}, because that is the better one."
    )


def _remedy(config: TrainConfig, handed_out: Winner) -> str:
    """Return what to do about a trained network that lost, in a sentence or two."""
    if handed_out == "start":
        return (
            "Less training may help: --tune last:1, a lower --optim.learning-rate, fewer --epochs. "
            "With --keep trained the model is the trained network."
        )
    kept = "The run's model is the trained network all the same."
    if config.init != RANDOM:
        return (
            f"{kept} Less training may help: --tune last:1, a lower --optim.learning-rate, fewer "
            "--epochs."
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
