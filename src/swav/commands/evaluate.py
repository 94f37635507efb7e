"""``swav evaluate``: how good the features of runs are, beside those of no training at all."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, get_args

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from swav.commands.runs import Run, load, open_pictures
from swav.config import UnknownNameError
from swav.data.sources import Pictures, SourceConfig, splits
from swav.data.transform import EvalTransform
from swav.evals import (
    EvalConfig,
    Features,
    Result,
    clusters,
    evaluating,
    extract,
    knn,
    linear,
    network_encoder,
    parts,
    pixel_encoder,
)
from swav.evals.features import encode_all

TASKS: dict[str, type[EvalConfig]] = {config.name: config for config in get_args(EvalConfig)}
LABELLED = ("knn", "linear", "clusters")


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    tasks: Sequence[str] = LABELLED,
    split: str | None = None,
    fit_on: str | None = None,
    score_on: str | None = None,
    as_json: bool = False,
) -> list[Result]:
    """Measure a run's backbone, the untrained network and raw pixels alike.

    Prints a table (or JSON) and writes ``eval/TASK.json`` into the run folder.

    Args:
        run: run folder.
        data: labelled pictures; by default those of the training.
        tasks: names of ``swav list tasks``.
        split: part to score, of data that has parts; by default test, or val without test.
        fit_on: pictures to fit on, with ``score_on``.
        score_on: pictures to score, with ``fit_on``.
        as_json: print JSON.

    Raises:
        ValueError: if a task is unknown or needs labels that the pictures do not have.
    """
    configs = [task_config(name) for name in tasks]
    opened = load(run)
    parts = _opened(opened, data, split=split, fit_on=fit_on, score_on=score_on)
    comparison = Comparison.of(
        opened.backbone,
        opened.untrained(),
        parts.load(),
        transform=opened.transform,
        seed=opened.config.seed,
        cluster=_hard(opened),
    )
    results = [comparison.run(config) for config in configs]
    for result in results:
        result.write(opened.folder / "eval" / f"{result.task}.json")
    if as_json:
        print(json.dumps([result.to_json() for result in results], indent=2))
    else:
        print_table(results, title=str(opened.folder))
    return results


def task_config(name: str) -> EvalConfig:
    """Return the default configuration of a task.

    Raises:
        ValueError: if there is no such task, with the nearest name.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    return TASKS[name]()


Assign = Callable[[Features], Tensor | None]
"""From features to the hard cluster of each picture."""


class Parts(NamedTuple):
    """What to fit on and what to score; ``score`` is None where one set plays both parts."""

    fit: Pictures
    score: Pictures | None
    fit_on: str
    score_on: str

    def load(self) -> "Parts":
        """Return the same with the pictures decoded in memory, if they fit there."""
        score = None if self.score is None else self.score.load()
        return self._replace(fit=self.fit.load(), score=score)


@dataclass(frozen=True)
class Comparison:
    """A network beside itself before training and beside raw pixels, on the same pictures."""

    subjects: "Mapping[str, _Subject]"
    parts: Parts
    seed: int

    @classmethod
    def of(
        cls,
        backbone: nn.Module,
        untrained: nn.Module,
        parts: Parts,
        *,
        transform: EvalTransform,
        seed: int,
        cluster: Assign,
    ) -> "Comparison":
        """Extract all features."""
        subjects = {
            "trained": _network_subject(backbone, parts, transform, cluster),
            "random": _network_subject(untrained, parts, transform, None),
            "pixels": _pixel_subject(parts),
        }
        return cls(subjects, parts, seed)

    def run(self, config: EvalConfig) -> Result:
        """Return the result of one task, the baselines beside it.

        Raises:
            ValueError: if the pictures do not allow this task.
        """
        about = {"fit_on": self.parts.fit_on, "score_on": self.parts.score_on}
        found = {
            name: _with_protocol(_run(config, subject), about)
            for name, subject in self.subjects.items()
        }
        result = replace(found.pop("trained"), seeds=(self.seed,))
        for name, baseline in found.items():
            result = result.with_baseline(name, baseline)
        return result


def fit_and_score(
    source: SourceConfig, *, split: str | None = None, trained_on: Pictures | None = None
) -> Parts:
    """Return the pictures to fit on and those to score.

    Data in parts are fitted on ``train`` and scored on ``test``, or ``val`` without one.

    Args:
        source: the data.
        split: the part to score instead.
        trained_on: the pictures of ``source`` that a training has open already.

    Raises:
        ValueError: if there is no such part.
    """
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
    return Parts(trained_on, score, f"{source.data} (train)", f"{source.data} ({chosen})")


def one_set(pictures: Pictures) -> Parts:
    """Return pictures that play both parts: leave one out, or a share of every class."""
    return Parts(pictures, None, pictures.data, pictures.data)


def print_table(results: Sequence[Result], *, title: str, stderr: bool = False) -> None:
    """Print one line for each metric: the run, its interval, the untrained network, pixels."""
    table = Table("task", "metric", "trained", "95 %", "untrained", "pixels", title=title)
    for result in results:
        for metric, value in result.metrics.items():
            low_high = result.intervals.get(metric)
            table.add_row(
                result.task,
                metric,
                f"{value:.4f}",
                "" if low_high is None else f"{low_high[0]:.4f}-{low_high[1]:.4f}",
                _cell(result.baselines.get("random", {}), metric),
                _cell(result.baselines.get("pixels", {}), metric),
            )
    Console(stderr=stderr).print(table)


@dataclass(frozen=True)
class _Subject:
    """Features under test, and the function that made them."""

    backbone: nn.Module | None
    encode: Callable[[Sequence[Tensor]], Tensor]
    pictures: Pictures
    fit: Features
    score: Features | None
    assignment: Tensor | None


def _network_subject(
    backbone: nn.Module, parts: Parts, transform: EvalTransform, cluster: Assign | None
) -> _Subject:
    device = next(backbone.parameters()).device
    fit = extract(backbone, parts.fit, transform, device=device)
    score = (
        None if parts.score is None else extract(backbone, parts.score, transform, device=device)
    )
    assignment = None if cluster is None else cluster(fit if score is None else score)
    encode = network_encoder(backbone, transform, device=device)
    return _Subject(backbone, encode, _scored(parts), fit, score, assignment)


def _pixel_subject(parts: Parts) -> _Subject:
    encode = pixel_encoder(parts.fit)
    score = None if parts.score is None else encode_all(encode, parts.score)
    return _Subject(None, encode, _scored(parts), encode_all(encode, parts.fit), score, None)


def _scored(parts: Parts) -> Pictures:
    return parts.fit if parts.score is None else parts.score


def _run(config: EvalConfig, subject: _Subject) -> Result:
    match config:
        case knn.KNNConfig():
            return knn.run(config, subject.fit, subject.score)
        case linear.LinearConfig():
            return linear.run(config, subject.fit, subject.score)
        case clusters.ClustersConfig():
            return clusters.run(config, subject.score or subject.fit, subject.assignment)
        case parts.PartsConfig():
            if subject.backbone is None:
                return parts.run(config, subject.encode, subject.pictures)
            with evaluating(subject.backbone):
                return parts.run(config, subject.encode, subject.pictures)


def _with_protocol(result: Result, about: Mapping[str, str]) -> Result:
    return replace(result, protocol={**result.protocol, **about})


def _opened(
    run: Run,
    data: str | None,
    *,
    split: str | None,
    fit_on: str | None,
    score_on: str | None,
) -> Parts:
    if (fit_on is None) != (score_on is None):
        raise ValueError("--fit-on and --score-on belong together: give both, or only DATA")
    if fit_on is not None and score_on is not None:
        return Parts(open_pictures(run, fit_on), open_pictures(run, score_on), fit_on, score_on)
    source = run.config.data
    if data is not None:
        source = replace(source, data=data, split=None)
    return fit_and_score(source, split=split)


def _hard(run: Run) -> Assign:
    def assign(features: Features) -> Tensor | None:
        probabilities = run.probabilities(features.values)
        return None if probabilities is None else probabilities.argmax(dim=1)

    return assign


def _cell(metrics: Mapping[str, float], metric: str) -> str:
    return f"{metrics[metric]:.4f}" if metric in metrics else ""
