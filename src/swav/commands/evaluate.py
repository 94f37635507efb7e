"""``swav evaluate``: how good the features of runs are, beside those of no training at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from swav.commands.comparison import Comparison, fit_and_score
from swav.commands.runs import Run, clusters_of_method, load, open_pictures
from swav.config import UnknownNameError
from swav.evals import EvalConfig, Result
from swav.evals.subject import Parts, Subject

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
    subject = Subject(
        parts.load(), opened.backbone, opened.transform, clusters_of_method(opened.objective)
    )
    comparison = Comparison(subject, opened.untrained(), opened.config.seed)
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


def _cell(metrics: Mapping[str, float], metric: str) -> str:
    return f"{metrics[metric]:.4f}" if metric in metrics else ""
