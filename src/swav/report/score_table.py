"""The table on the screen: every score beside those of the baselines."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from rich import box
from rich.console import Console
from rich.table import Column, Table

from swav.run_folder.readers import Evaluation
from swav.run_folder.result import Result

WIDE = 200
BASELINES = {
    "start": "start,\nfrozen",
    "scratch": "from\nscratch",
    "random": "untrained",
    "pixels": "pixels",
    "patch-kmeans": "patch\nk-means",
}
"""What the columns of baselines are called."""
Groups = Mapping[str, Sequence[Sequence[Result | Evaluation]]]
"""The results of each model of a group, by what the group is called."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one group: the mean over its runs."""

    task: str
    metric: str
    group: str
    runs: int
    value: float
    deviation: float | None
    """Between runs, of two or more."""
    interval: tuple[float, float] | None
    """95 % over pictures, of one run."""
    baselines: Mapping[str, float]


def scores(groups: Groups) -> list[Score]:
    """Return every metric of every group that has it, in the order in which they were asked for."""
    found = []
    for task, metric in _metrics(groups):
        for group, runs in groups.items():
            measured = [
                result
                for results in runs
                for result in results
                if result.label == task and metric in result.metrics
            ]
            if measured:
                found.append(_score(group, measured, metric))
    return found


def print_table(groups: Groups, *, title: str, stderr: bool = False) -> None:
    """Print one line for each metric of each group: runs that differ by their seed alone.

    Of one run the interval over pictures is shown, of several the deviation between them.
    """
    rows = scores(groups)
    repeated = any(len(runs) > 1 for runs in groups.values())
    names = (*(("model",) if len(groups) > 1 else ()), *(("runs",) if repeated else ()))
    sure = "95 %, +- runs" if repeated else "95 %"
    known = set().union(*(row.baselines for row in rows))
    beside = {name: title for name, title in BASELINES.items() if name in known}
    table = Table(
        *(Column(name, overflow="fold") for name in ("task", "metric", *names)),
        *(Column(name, no_wrap=True) for name in ("value", sure, *beside.values())),
        title=title,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    previous = ""
    for row in rows:
        named = {"model": row.group, "runs": str(row.runs)}
        first = "" if row.task == previous else row.task
        table.add_row(first, row.metric, *(named[name] for name in names), *_cells(row, beside))
        previous = row.task
    console = Console(stderr=stderr)
    if not console.is_terminal:  # a file has lines of any length
        console.width = WIDE
    console.print(table)


def _metrics(groups: Groups) -> list[tuple[str, str]]:
    """Return every task and metric once, in the order in which they were asked for."""
    return list(
        dict.fromkeys(
            (result.label, metric)
            for runs in groups.values()
            for results in runs
            for result in results
            for metric in result.metrics
        )
    )


def _score(group: str, results: Sequence[Result | Evaluation], metric: str) -> Score:
    values = [result.metrics[metric] for result in results]
    beside: dict[str, list[float]] = {}
    for result in results:
        for name, metrics in result.baselines.items():
            if metric in metrics:
                beside.setdefault(name, []).append(metrics[metric])
    return Score(
        task=results[0].label,
        metric=metric,
        group=group,
        runs=len(values),
        value=mean(values),
        deviation=stdev(values) if len(values) > 1 else None,
        interval=results[0].intervals.get(metric) if len(values) == 1 else None,
        baselines={name: mean(known) for name, known in beside.items()},
    )


def _cells(row: Score, baselines: Collection[str]) -> list[str]:
    sure = "" if row.deviation is None else f"+-{row.deviation:.4f}"
    if row.interval is not None:
        sure = f"{row.interval[0]:.3f}-{row.interval[1]:.3f}"
    beside = [f"{row.baselines[name]:.4f}" if name in row.baselines else "" for name in baselines]
    return [f"{row.value:.4f}", sure, *beside]
