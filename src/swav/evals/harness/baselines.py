"""A network beside itself before training and beside raw pixels, on the same pictures."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from swav.data.sources.annotated import is_annotated, open_annotated
from swav.data.sources.open import SourceConfig, splits
from swav.data.sources.pictures import Pictures
from swav.evals import EvalConfig, Result
from swav.evals.harness.subject import EvalData, Subject


class PixelBaseline:
    """What raw pixels score, found once for all models that are shown the same pictures."""

    def __init__(self, data: EvalData) -> None:
        self.data = data
        self._subject = Subject(data)
        self._found: dict[EvalConfig, Result] = {}

    def run(self, config: EvalConfig) -> Result:
        """Return the result of one task."""
        if config not in self._found:
            self._found[config] = _result(config, self._subject)
        return self._found[config]


@dataclass(frozen=True)
class Comparison:
    """One subject and the baselines that stand beside it in every table."""

    subject: Subject
    untrained: nn.Module | None
    """The subject's network before training; None for raw pixels."""
    seed: int
    pixels: PixelBaseline

    def run(self, config: EvalConfig) -> Result:
        """Return the result of one task, with those baselines that the task knows beside it.

        Raises:
            ValueError: if the pictures do not allow this task.
        """
        is_network = self.subject.backbone is not None
        found = _result(config, self.subject) if is_network else self.pixels.run(config)
        result = replace(found, seeds=(self.seed,))
        if self.subject.transform is not None:
            shown = asdict(self.subject.transform)
            result = replace(result, details={**result.details, "input": shown})
        if "random" in config.baselines and self.untrained is not None:
            is_untrained = self.untrained is self.subject.backbone
            random = found if is_untrained else _result(config, self._random)
            result = result.with_baseline("random", random)
        if "pixels" in config.baselines:
            result = result.with_baseline("pixels", self.pixels.run(config))
        return result

    @cached_property
    def _random(self) -> Subject:
        subject = self.subject
        return Subject(subject.data, self.untrained, subject.transform, cache=subject.cache)


def _result(config: EvalConfig, subject: Subject) -> Result:
    result = config.evaluate(subject)
    about: dict[str, Any] = {"fit_on": subject.data.fit_on, "score_on": subject.data.score_on}
    if hasattr(config, "seed"):  # of splits, folds and drawn pictures; that of the run is beside it
        about["seed"] = config.seed
    return replace(result, protocol={**result.protocol, **about})


def fit_and_score(
    source: SourceConfig, *, split: str | None = None, trained_on: Pictures | None = None
) -> EvalData:
    """Return the pictures to fit on and those to score.

    Data in parts are fitted on ``train`` and scored on ``test``, or ``val`` without one.

    Args:
        source: the data.
        split: the part to score instead.
        trained_on: the pictures of ``source`` that a training has open already.

    Raises:
        ValueError: if there is no such part.
    """
    if trained_on is None and split is None and is_annotated(source.data):
        return parts_with_boxes(source)
    found = splits(source.data)
    held_out = [part for part in found if part != "train"]
    if split is None and ("train" not in found or not held_out):
        return one_set(source.build() if trained_on is None else trained_on)
    chosen = split or ("test" if "test" in held_out else held_out[0])
    if chosen not in held_out or "train" not in found:
        parts_of = f"has the parts {', '.join(found)}" if found else "has no parts"
        raise ValueError(
            f"--split {chosen}: {source.data} {parts_of}; this needs train, and another to score "
            "(folders train, val, test), or --fit-on and --score-on"
        )
    is_train = source.split in (None, "train")
    if trained_on is None or trained_on.labels is None or not is_train:
        trained_on = replace(source, split="train").build()
    score = replace(source, split=chosen).build()
    return EvalData(trained_on, score, f"{source.data} (train)", f"{source.data} ({chosen})")


def fit_on_and_score_on(source: SourceConfig, fit_on: str, score_on: str) -> EvalData:
    """Return two sets; of data in parts, ``train`` to fit on and a held-out part to score.

    Raises:
        ValueError: if both are the same pictures.
    """
    opened, names = [], []
    for data, first in ((fit_on, ("train",)), (score_on, ("test", "val"))):
        found = splits(data)
        split = next((part for part in first if part in found), None)
        opened.append(replace(source, data=data, split=split).build())
        names.append(data if split is None else f"{data} ({split})")
    if opened[0].digest() == opened[1].digest():
        raise ValueError(
            f"--fit-on and --score-on are the same pictures ({names[1]}): a picture would find "
            "itself. Give two sets, or one DATA without these options (it is split, or leaves one "
            "out)"
        )
    return EvalData(opened[0], opened[1], names[0], names[1])


def parts_with_boxes(source: SourceConfig) -> EvalData:
    """Return the parts that a set of VOC or COCO itself says are to fit on and to score."""
    fit, score = open_annotated(source.data, channels=source.channels)
    names = f"{source.data} (fit)", f"{source.data} (score)"
    return EvalData(fit.pictures, score.pictures, *names, boxes=(fit, score))


def one_set(pictures: Pictures) -> EvalData:
    """Return pictures that play both parts: leave one out, or a share of every class."""
    return EvalData(pictures, None, pictures.data, pictures.data)
