"""Several runs on one page: settings that differ, scores with their spread, curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from swav.report import wording
from swav.report.figures import (
    ACCENT,
    COOL,
    INK,
    MUTED,
    WARM,
    Line,
    PageFigure,
    Track,
    side_by_side,
)
from swav.report.score_table import Groups, Score, scores
from swav.report.templates import rendered
from swav.run_folder.atomic import write_atomically
from swav.run_folder.readers import Evaluation
from swav.run_folder.result import Metric

COLOURS = (ACCENT, WARM, COOL, INK, MUTED)
"""Of groups; then the same again, dashed."""
MEASURES = {
    "loss": "Loss",
    "prototypes_used": "Share of prototypes used",
    "code_entropy": "Entropy of the codes, over ln K",
    "rankme": "Effective rank of the features",
    "knn_top1_k10": "Nearest neighbours while training",
}
"""Columns of ``metrics.jsonl`` that are drawn."""
POSITIONS = {"step": "Steps", "images": "Pictures seen", "seconds": "Seconds"}
"""Columns that they are drawn over."""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """What a run left in its folder."""

    name: str
    record: Mapping[str, Any]
    curves: Mapping[str, Float[np.ndarray, " _"]]
    evaluations: Sequence[Evaluation]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side."""

    groups: Mapping[str, Sequence[ComparedRun]]
    """Runs that differ by their seed alone, by the name of the first."""
    settings: Mapping[str, Sequence[str]]
    """In which groups differ, with the value of each."""

    def results(self, *, of: Literal["leading", "all"] = "leading") -> Groups:
        """Return the evaluations of every run, with the metric that stands for each task or all."""
        return {
            label: [
                [_leading(each) if of == "leading" else each for each in run.evaluations]
                for run in runs
            ]
            for label, runs in self.groups.items()
        }

    def unlike(self) -> dict[str, list[str]]:
        """Return by task the conditions that are not the same in all runs: do not compare these."""
        conditions: dict[str, list[Mapping[str, Any]]] = {}
        for runs in self.groups.values():
            for evaluation in (each for run in runs for each in run.evaluations):
                conditions.setdefault(evaluation.label, []).append(evaluation.conditions)
        differing = {
            task: [
                name
                for name in dict.fromkeys(name for each in known for name in each)
                if any(each.get(name) != known[0].get(name) for each in known)
            ]
            for task, known in conditions.items()
        }
        return {task: names for task, names in differing.items() if names}


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page: one file that fetches nothing and runs nothing."""
    groups = [*comparison.groups]
    page = rendered(
        "compare.html.j2",
        title=f"{wording.count(sum(map(len, comparison.groups.values())), 'run')} side by side",
        groups=[
            (str(number), wording.printable(label), [_facts(run) for run in runs])
            for number, (label, runs) in enumerate(comparison.groups.items(), 1)
        ],
        settings=[
            (wording.printable(name), [wording.printable(wording.private(each)) for each in values])
            for name, values in comparison.settings.items()
        ],
        baselines=wording.baselines_of(_evaluations(comparison)),
        baseline_title=wording.baseline_title,
        leading=_table(comparison, groups, scores(comparison.results())),
        every=_table(comparison, groups, scores(comparison.results(of="all"))),
        unlike=[
            (wording.printable(task), ", ".join(map(wording.printable, names)))
            for task, names in comparison.unlike().items()
        ],
        curves=_curves(comparison),
    )
    write_atomically(path, page)


def _leading(evaluation: Evaluation) -> Evaluation:
    lead = evaluation.lead
    metrics = {} if lead is None else {lead: evaluation.metrics[lead]}
    return replace(evaluation, metrics=metrics)


def _evaluations(comparison: Comparison) -> list[Evaluation]:
    return [each for runs in comparison.groups.values() for run in runs for each in run.evaluations]


def _facts(run: ComparedRun) -> list[str]:
    """Return the cells of one run: name, seed, status, steps, time, speed."""
    record = run.record
    steps, seconds = wording.last(run.curves, "step"), wording.last(run.curves, "seconds")
    speed = run.curves.get("images_per_second", np.array([np.nan]))
    mean_speed = float(np.nanmean(speed)) if np.isfinite(speed).any() else np.nan
    return [
        wording.printable(run.name),
        wording.printable(record.get("seed", "")),
        wording.printable(record.get("status", "")),
        f"{steps:,.0f}" if np.isfinite(steps) else "",
        wording.duration(seconds) if np.isfinite(seconds) else "",
        f"{mean_speed:,.0f}" if np.isfinite(mean_speed) else "",
    ]


def _table(
    comparison: Comparison, groups: Sequence[str], rows: Sequence[Score]
) -> list[dict[str, Any]]:
    """Return the rows of a table of scores, as they are shown."""
    known = _evaluations(comparison)
    titles = {each.label: wording.evaluation_title(each) for each in known}
    about = {(each.label, name): metric for each in known for name, metric in each.about.items()}
    baselines = wording.baselines_of(known)
    return [
        {
            "task": titles[row.task],
            "metric": wording.printable(about[row.task, row.metric].title),
            "group": str(groups.index(row.group) + 1),
            "runs": row.runs,
            "value": wording.score(about[row.task, row.metric], row.value),
            "sure": _sure(row, about[row.task, row.metric]),
            "baselines": [
                wording.score(about[row.task, row.metric], row.baselines[name])
                if name in row.baselines
                else ""
                for name in baselines
            ],
        }
        for row in rows
    ]


def _sure(row: Score, about: Metric) -> str:
    if row.deviation is not None:
        return f"\u00b1 {wording.score(about, row.deviation)}"
    if row.interval is None:
        return ""
    low, high = (wording.score(about, bound) for bound in row.interval)
    return f"{low} \u2013 {high}"


def _curves(comparison: Comparison) -> list[PageFigure]:
    """Return each measure over steps, pictures and seconds, as far as the runs have them."""
    return [
        side_by_side(
            f"{measure}-{over}",
            title,
            "Each run has its line; the number at its end is that of its group.",
            horizontal,
            tracks,
        )
        for measure, title in MEASURES.items()
        for over, horizontal in POSITIONS.items()
        if (tracks := list(_tracks(comparison, measure, over)))
    ]


def _tracks(comparison: Comparison, measure: str, over: str) -> Iterator[Track]:
    """Yield a curve for each run that has both columns; the first of a group bears its number."""
    for place, runs in enumerate(comparison.groups.values()):
        label = str(place + 1)
        for run in runs:
            if not {measure, over} <= run.curves.keys():
                continue
            end = wording.last(run.curves, measure)
            line = Line(
                values=run.curves[measure],
                label=label and f"{label}: {end:.3f}",
                colour=COLOURS[place % len(COLOURS)],
                dashed=place // len(COLOURS) % 2 == 1,
            )
            label = ""
            yield Track(positions=run.curves[over], line=line)
