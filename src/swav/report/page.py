"""From a run folder to ``report.html``: gather the sections, fill the template, write one file."""

import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup

from swav.data.sources.pictures import Pictures
from swav.report import figures, galleries, verdict, wording
from swav.report.map_data import picture_map
from swav.report.templates import own_text, rendered
from swav.report.thumbnails import Album
from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically
from swav.run_folder.readers import (
    Absent,
    Evaluation,
    read_curves,
    read_embeddings,
    read_evaluations,
    read_run,
    read_text,
)
from swav.run_folder.record import hands_out_start
from swav.run_folder.result import Metric

MOST_BAD_FILES = 200
MENU = (
    ("map", "Map", "map"),
    ("clusters", "Clusters", "clusters"),
    ("scores", "Scores", "tables"),
    ("curves", "Curves", "curves"),
    ("views", "Views", "views"),
    ("neighbours", "Neighbours", "queries"),
    ("bad-files", "Bad files", "bad_files"),
    ("settings", "Settings", "settings"),
)
"""The sections: id, title, and the part of the content that says whether there is something."""

Content = TypeVar("Content")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of the table of evaluations, every cell as it is shown."""

    metric: str
    value: str
    interval: str
    baselines: tuple[str, ...]
    best: bool
    """Whether no baseline is as good."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """All metrics of one evaluation and how they were measured."""

    title: str
    protocol: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    alone: tuple[str, ...] = ()
    """Metrics that are left out, for no baseline has them."""


def write_report(
    run_folder: str | PathLike[str],
    pictures: Pictures | None = None,
    *,
    map_points: int | None = None,
) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    The page is one file that fetches nothing and runs no script but its own. A section whose file
    is absent from the folder says so in a sentence. ``pictures`` are the ones that
    ``embeddings.npz`` and ``clusters.csv`` name; without them the page shows names in place of
    thumbnails. ``map_points`` is the most pictures on the map, by default as many as before, or
    2,000.

    Raises:
        ValueError: ``run_folder`` is not a folder, or ``map_points`` is out of range.
    """
    folder = Path(run_folder)
    target = folder / layout.REPORT
    write_atomically(target, page(folder, pictures, map_points=map_points))
    return target


def page(
    run_folder: Path,
    pictures: Pictures | None,
    *,
    map_points: int | None = None,
    served: bool = False,
) -> bytes:
    """Return what ``write_report`` writes; a page that is ``served`` sends what is to be saved."""
    if not run_folder.is_dir():
        raise ValueError(f"{run_folder} is not a run folder: give the --out folder of swav train")
    content = _content(run_folder, pictures, map_points, served=served)
    script = own_text("map.js")
    # the policy of the page lets this script run and no other
    script_hash = b64encode(sha256(script.encode()).digest()).decode("ascii")
    return rendered("page.html.j2", **content, script=Markup(script), script_hash=script_hash)


def evaluation_table(evaluation: Evaluation, baselines: Sequence[str]) -> Table:
    """Return the cells of one evaluation's part of the table, a column for each baseline.

    Where there are baselines, a metric that none of them has is left out: alone it misleads.
    """
    compared = set().union(*evaluation.baselines.values()) if evaluation.baselines else None
    alone = [
        metric
        for metric in evaluation.metrics
        if compared is not None
        and metric not in compared
        and evaluation.about[metric].higher_is_better is not None
    ]
    return Table(
        title=wording.evaluation_title(evaluation),
        protocol=tuple(flat(evaluation.protocol)),
        rows=tuple(
            _row(evaluation, metric, baselines)
            for metric in evaluation.metrics
            if metric not in alone
        ),
        alone=tuple(wording.printable(evaluation.about[metric].title) for metric in alone),
    )


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as lines, ``versions.torch`` beside its value; paths are shortened."""
    lines = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            lines += flat(value, f"{name}.")
        elif value is not None and value != [] and value != "":
            listed = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            listed = {"True": "yes", "False": "no"}.get(listed, listed)
            lines.append((wording.printable(name), wording.printable(wording.private(listed))))
    return lines


def _content(
    run_folder: Path, pictures: Pictures | None, map_points: int | None, *, served: bool
) -> dict[str, Any]:
    run = _or_absent(lambda: read_run(run_folder))
    known = {} if isinstance(run, Absent) else run
    columns = _or_absent(lambda: read_curves(run_folder))
    curves = {} if isinstance(columns, Absent) else columns
    evaluated = _or_absent(lambda: read_evaluations(run_folder))
    evaluations = [] if isinstance(evaluated, Absent) else wording.in_order(evaluated[0])
    if hands_out_start(known):
        evaluations = [wording.without_start(evaluation) for evaluation in evaluations]
    album = Album(pictures)
    embeddings = _or_absent(lambda: read_embeddings(run_folder))
    rows = None if isinstance(embeddings, Absent) else embeddings
    content = {
        "name": wording.printable(run_folder.resolve().name),
        **_first_screen(known, curves, evaluations, run_folder.resolve().name),
        "served": served,
        "map": embeddings
        if isinstance(embeddings, Absent)
        else _or_absent(
            lambda: picture_map(run_folder, embeddings, album, most=map_points, served=served)
        ),
        **_scores(evaluated, evaluations),
        "curves": columns if isinstance(columns, Absent) else figures.curves(columns),
        "views": _or_absent(lambda: galleries.views(run_folder, album)),
        "clusters": _or_absent(lambda: galleries.clusters(run_folder, album, rows)),
        "queries": embeddings
        if isinstance(embeddings, Absent)
        else _or_absent(lambda: galleries.nearest_pictures(embeddings, album)),
        "without_pictures": pictures is None,
        "bad_files": _or_absent(lambda: _bad_files(run_folder)),
        "settings": _or_absent(lambda: _settings(run_folder)),
        "environment": run if isinstance(run, Absent) else flat(run),
    }
    return content | {"menu": [(id, title) for id, title, part in MENU if _has(content[part])]}


def _has(part: object) -> bool:
    """Return whether a section has more to show than why it is empty."""
    return not isinstance(part, Absent) and part != []


def _first_screen(
    record: Mapping[str, Any],
    curves: Mapping[str, Any],
    evaluations: Sequence[Evaluation],
    name: str,
) -> dict[str, Any]:
    """Return what a reader sees first."""
    health = verdict.health_line(curves)
    return {
        "headline": wording.headline(record),
        "statement": wording.private(wording.verdict(record)) if hands_out_start(record) else "",
        "drawbacks": [wording.private(line) for line in wording.drawbacks(record, evaluations)],
        "verdict": [
            *([] if health is None else [health]),
            *verdict.verdict_lines(record, evaluations),
        ],
        "numbers": verdict.numbers(evaluations, curves),
        "steps": verdict.next_steps(record, evaluations, curves, run=wording.printable(name)),
        "facts": _facts(record, curves),
    }


def _scores(
    evaluated: tuple[list[Evaluation], list[str]] | Absent, evaluations: Sequence[Evaluation]
) -> dict[str, Any]:
    """Return the content of the section of scores."""
    cards, baselines = map(wording.scorecard, evaluations), wording.baselines_of(evaluations)
    unreadable = [] if isinstance(evaluated, Absent) else evaluated[1]
    return {
        "findings": wording.findings(evaluations),
        "cards": [card for card in cards if card is not None],
        "baselines": [wording.baseline_title(name) for name in baselines],
        "tables": evaluated
        if isinstance(evaluated, Absent)
        else [evaluation_table(each, baselines) for each in evaluations],
        "stages": _stages(evaluations),
        "unreadable": [wording.printable(name) for name in unreadable],
    }


def _stages(evaluations: Sequence[Evaluation]) -> figures.PageFigure | None:
    """Return the curve of the evaluation layer by layer, if there is one."""
    curves = (
        figures.stages(evaluation.metrics, evaluation.baselines) for evaluation in evaluations
    )
    return next((curve for curve in curves if curve is not None), None)


def _or_absent(make: Callable[[], Content]) -> Content | Absent:
    try:
        return make()
    except Absent as reason:
        return reason


def _facts(run: Mapping[str, Any], columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if "step" in columns:
        facts.append(("Steps", f"{columns['step'][-1]:,.0f}"))
    seconds = run.get("seconds", columns["seconds"][-1] if "seconds" in columns else None)
    if isinstance(seconds, int | float) and math.isfinite(seconds):
        facts.append(("Time", wording.duration(float(seconds))))
    for key in ("recipe", "seed", "status"):
        if run.get(key) is not None:
            facts.append((key.capitalize(), wording.printable(run[key])))
    if run.get("started"):
        facts.append(("Started", wording.printable(run["started"])[:16].replace("T", " ")))
    return facts


def _row(evaluation: Evaluation, metric: str, baselines: Sequence[str]) -> Row:
    value, about = evaluation.metrics[metric], evaluation.about[metric]
    beside = [evaluation.baselines.get(name, {}).get(metric) for name in baselines]
    interval = ""
    if metric in evaluation.intervals:
        low, high = evaluation.intervals[metric]
        interval = f"{wording.score(about, low)} \u2013 {wording.score(about, high)}"
    return Row(
        metric=wording.printable(about.title),
        value=wording.score(about, value),
        interval=interval,
        baselines=tuple(
            "" if baseline is None else wording.score(about, baseline) for baseline in beside
        ),
        best=_is_best(about, value, [baseline for baseline in beside if baseline is not None]),
    )


def _is_best(about: Metric, value: float, baselines: Sequence[float]) -> bool:
    """Return whether there are baselines and none of them is as good."""
    if about.higher_is_better is None or not baselines:
        return False
    return value > max(baselines) if about.higher_is_better else value < min(baselines)


def _bad_files(run_folder: Path) -> tuple[list[tuple[str, str]], int]:
    """Return names and reasons of the first files in ``bad_files.txt``; how many more there are."""
    path = run_folder / layout.BAD_FILES
    if not path.is_file():
        raise Absent("Every picture could be read.")
    lines = dict.fromkeys(line for line in read_text(path).split("\n") if line.strip())
    reasons = [line.partition("\t") for line in lines]
    some = [(wording.printable(name), wording.printable(reason)) for name, _, reason in reasons]
    return some[:MOST_BAD_FILES], max(len(some) - MOST_BAD_FILES, 0)


def _settings(run_folder: Path) -> str:
    """Return ``config.yaml`` as it stands, but for the folders of absolute paths."""
    text = read_text(run_folder / layout.CONFIG)
    return "\n".join(wording.printable(wording.private(line)) for line in text.split("\n"))
