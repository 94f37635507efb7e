"""The table on the screen: every score beside those of the baselines."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from statistics import mean, stdev

from rich import box
from rich.console import Console
from rich.table import Column, Table

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
Groups = Mapping[str, Sequence[Sequence[Result]]]
"""The results of each model of a group, by what the group is called."""


def print_table(groups: Groups, *, title: str, stderr: bool = False) -> None:
    """Print one line for each metric of each group: runs that differ by their seed alone.

    Of one run the interval over pictures is shown, of several the deviation between them.
    """
    several = len(groups) > 1
    repeated = any(len(runs) > 1 for runs in groups.values())
    names = (*(("model",) if several else ()), *(("runs",) if repeated else ()))
    sure = "95 %, +- runs" if repeated else "95 %"
    beside = _baselines(groups)
    table = Table(
        *(Column(name, overflow="fold") for name in ("task", "metric", *names)),
        *(Column(name, no_wrap=True) for name in ("value", sure, *beside.values())),
        title=title,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    previous = ""
    for task, metric in _metrics(groups):
        for label, runs in groups.items():
            measured = [
                result
                for results in runs
                for result in results
                if result.label == task and metric in result.metrics
            ]
            if not measured:
                continue
            named = {"model": label, "runs": str(len(measured))}
            first = "" if task == previous else task
            table.add_row(
                first, metric, *(named[name] for name in names), *_cells(measured, metric, beside)
            )
            previous = task
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


def _baselines(groups: Groups) -> dict[str, str]:
    """Return the baselines that any result has, and what their columns are called."""
    results = chain.from_iterable(chain.from_iterable(groups.values()))
    known = {name for result in results for name, metrics in result.baselines.items() if metrics}
    return {name: title for name, title in BASELINES.items() if name in known}


def _cells(results: Sequence[Result], metric: str, baselines: Collection[str]) -> list[str]:
    values = [result.metrics[metric] for result in results]
    sure = f"+-{stdev(values):.4f}" if len(values) > 1 else ""
    low_high = results[0].intervals.get(metric)
    if len(values) == 1 and low_high is not None:
        sure = f"{low_high[0]:.3f}-{low_high[1]:.3f}"
    beside = []
    for name in baselines:
        known = [
            result.baselines[name][metric]
            for result in results
            if metric in result.baselines.get(name, {})
        ]
        beside.append(f"{mean(known):.4f}" if known else "")
    return [f"{mean(values):.4f}", sure, *beside]
