"""``swav evaluate``: how good the features of runs are, beside those of no training at all."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, get_args

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from swav.commands.runs import Run, load, open_pictures
from swav.config import UnknownNameError
from swav.data.sources import Pictures, splits
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
    fit, score = _fit_and_score(opened, data, split=split, fit_on=fit_on, score_on=score_on)
    results = measure(
        opened.backbone,
        opened.untrained(),
        fit,
        score,
        configs=configs,
        transform=opened.transform,
        seed=opened.config.seed,
        cluster=_hard(opened),
    )
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


def measure(
    backbone: nn.Module,
    untrained: nn.Module,
    fit: Pictures,
    score: Pictures | None,
    *,
    configs: Sequence[EvalConfig],
    transform: EvalTransform,
    seed: int,
    cluster: Assign,
) -> list[Result]:
    """Return each task's result with the untrained network and raw pixels as its baselines."""
    subjects = {
        "trained": _network_subject(backbone, fit, score, transform, cluster),
        "random": _network_subject(untrained, fit, score, transform, None),
        "pixels": _pixel_subject(fit, score),
    }
    about = {"fit_on": fit.data, "score_on": fit.data if score is None else score.data}
    results = []
    for config in configs:
        found = {
            name: _with_protocol(_run(config, subject), about) for name, subject in subjects.items()
        }
        result = replace(found.pop("trained"), seeds=(seed,))
        for name, baseline in found.items():
            result = result.with_baseline(name, baseline)
        results.append(result)
    return results


def print_table(results: Sequence[Result], *, title: str, file: TextIO | None = None) -> None:
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
    Console(file=file or sys.stdout).print(table)


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
    backbone: nn.Module,
    fit: Pictures,
    score: Pictures | None,
    transform: EvalTransform,
    cluster: Assign | None,
) -> _Subject:
    device = next(backbone.parameters()).device
    fitted = extract(backbone, fit, transform, device=device)
    scored = None if score is None else extract(backbone, score, transform, device=device)
    assignment = None if cluster is None else cluster(fitted if scored is None else scored)
    encode = network_encoder(backbone, transform, device=device)
    return _Subject(backbone, encode, score or fit, fitted, scored, assignment)


def _pixel_subject(fit: Pictures, score: Pictures | None) -> _Subject:
    encode = pixel_encoder(fit)
    scored = None if score is None else encode_all(encode, score)
    return _Subject(None, encode, score or fit, encode_all(encode, fit), scored, None)


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


def _fit_and_score(
    run: Run,
    data: str | None,
    *,
    split: str | None,
    fit_on: str | None,
    score_on: str | None,
) -> tuple[Pictures, Pictures | None]:
    """Return what to fit on and what to score; None where one set plays both parts."""
    if (fit_on is None) != (score_on is None):
        raise ValueError("--fit-on and --score-on belong together: give both, or only DATA")
    if fit_on is not None and score_on is not None:
        return open_pictures(run, fit_on), open_pictures(run, score_on)
    name = data or run.config.data.data
    found = splits(name)
    if not found:
        if split is not None:
            raise ValueError(f"--split {split}: {name} has no parts (folders train, val, test)")
        return open_pictures(run, data), None
    held_out = [part for part in found if part != "train"]
    chosen = split or ("test" if "test" in held_out else next(iter(held_out), None))
    if chosen not in held_out or "train" not in found:
        raise ValueError(f"--split {chosen}: {name} has the parts {', '.join(found)}")
    return open_pictures(run, data, split="train"), open_pictures(run, data, split=chosen)


def _hard(run: Run) -> Assign:
    def assign(features: Features) -> Tensor | None:
        probabilities = run.probabilities(features.values)
        return None if probabilities is None else probabilities.argmax(dim=1)

    return assign


def _cell(metrics: Mapping[str, float], metric: str) -> str:
    return f"{metrics[metric]:.4f}" if metric in metrics else ""
