"""What a run left in its folder, read without trusting that it is there or whole."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int, UInt8

from swav.run_folder import layout
from swav.run_folder.migrations import FORMER_TASKS, migrate_result
from swav.run_folder.result import Metric


class Absent(ValueError):
    """Why a section of the page has nothing to show, in one plain sentence."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One file of ``eval/``; numbers that are not finite are left out."""

    task: str
    title: str
    """Of the task; its name where the file has no title."""
    name: str = ""
    """Of a published protocol of the task, or of the user."""
    protocol: Mapping[str, Any]
    """What the numbers depend on: choices, numbers of pictures, seeds."""
    metrics: Mapping[str, float]
    about: Mapping[str, Metric]
    """What each of the metrics is."""
    lead: str | None
    """The metric that stands for the task, None if it has no number."""
    finding: str = ""
    """What follows the value of the leading metric in a sentence, if it can be said in one."""
    intervals: Mapping[str, tuple[float, float]]
    baselines: Mapping[str, Mapping[str, float]]
    """Metrics of other features under the same protocol: ``start`` (what the run started from,
    frozen), ``random`` (untrained), ``pixels``, ``patch-kmeans``."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """Of ``protocol`` what two results must share to be comparable."""

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or self.task


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The members of a cluster, the most probable first."""

    name: str
    paths: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The rows of ``embeddings.npz``."""

    values: Float[np.ndarray, "images features"]
    paths: tuple[str, ...]
    labels: Int[np.ndarray, " images"] | None
    classes: tuple[str, ...]
    """Names of the labels, as far as they have any."""


@dataclass(frozen=True, kw_only=True)
class ViewGroup:
    """The views of one size: for each picture of ``names``, as many as the recipe draws."""

    names: tuple[str, ...]
    views: UInt8[np.ndarray, "images views height width channels"]


def read_text(path: Path) -> str:
    """Return the text of a file; bytes that are not UTF-8 become surrogates, as in file names."""
    if not path.is_file():
        raise Absent(f"The run has no {path.name}.")
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def read_run(run_folder: Path) -> dict[str, Any]:
    """Return ``run.json``."""
    return _json_object(read_text(run_folder / layout.RECORD), layout.RECORD)


def read_curves(run_folder: Path) -> dict[str, Float[np.ndarray, " _"]]:
    """Return each number of ``metrics.jsonl`` as a column, NaN where a line does not have it.

    A line that is not a whole JSON object, such as the last one of a run that was killed,
    is skipped.
    """
    rows = []
    for line in read_text(run_folder / layout.METRICS).splitlines():
        try:
            row = _json_object(line, layout.METRICS)
        except Absent:
            continue
        if _is_number(row.get("step")):
            rows.append(row)
    if not rows:
        raise Absent(f"{layout.METRICS} holds no step yet.")
    names = {name for row in rows for name, value in row.items() if _is_number(value)}
    return {
        name: np.array([_number(row.get(name)) for row in rows], dtype=np.float64)
        for name in sorted(names)
    }


def read_evaluations(run_folder: Path) -> tuple[list[Evaluation], list[str]]:
    """Return what ``eval/*.json`` holds, by task, and the names of files that cannot be read."""
    evaluations: list[Evaluation] = []
    unreadable: list[str] = []
    for path in sorted((run_folder / layout.EVALUATIONS).glob("*.json")):
        try:
            result = read_result(path)
        except Absent:
            unreadable.append(path.name)
        else:
            present = present_path(path, result)
            if present == path or not present.exists():  # else it was evaluated again since
                evaluations.append(_evaluation(result, path.stem))
    if not evaluations and not unreadable:
        raise Absent("Nothing was evaluated: scores need pictures with labels, or a task for them.")
    return evaluations, unreadable


def read_result(path: Path) -> dict[str, Any]:
    """Return what a file of ``eval/`` holds, in the present form."""
    return migrate_result(_json_object(read_text(path), path.name))


def present_path(path: Path, result: Mapping[str, Any]) -> Path:
    """Return where a result that was read from ``path`` is written now: tasks were renamed."""
    task = FORMER_TASKS.get(path.stem)
    is_former = task is not None and result.get("task") == task and not result.get("name")
    return path.with_stem(task) if task is not None and is_former else path


def read_clusters(run_folder: Path) -> list[Cluster]:
    """Return the clusters of ``clusters.csv``, the largest first."""
    path = run_folder / layout.CLUSTERS
    if not path.is_file():
        raise Absent(f"The run has no {layout.CLUSTERS}: swav cluster makes it.")
    members: dict[str, list[tuple[float, str]]] = {}
    for row in csv_rows(path):
        if not {"path", "cluster", "probability"} <= row.keys():
            raise Absent(f"{layout.CLUSTERS} does not have the columns path, cluster, probability.")
        if row["cluster"]:
            member = (_number(row["probability"]), csv_path(row["path"]))
            members.setdefault(row["cluster"], []).append(member)
    if not members:
        raise Absent(f"{layout.CLUSTERS} assigns no picture.")
    by_size = sorted(members.items(), key=lambda item: -len(item[1]))
    return [_cluster(name, rows) for name, rows in by_size]


def read_embeddings(run_folder: Path) -> Embeddings:
    """Return the rows of ``embeddings.npz``."""
    arrays = read_arrays(run_folder / layout.EMBEDDINGS, "swav embed makes it")
    if not {"embeddings", "paths"} <= arrays.keys():
        raise Absent(f"{layout.EMBEDDINGS} does not hold the arrays embeddings and paths.")
    values, paths = arrays["embeddings"], as_text(arrays["paths"])
    if values.ndim != 2 or len(values) != len(paths):
        raise Absent(f"The embeddings and the paths of {layout.EMBEDDINGS} do not belong together.")
    values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise Absent(f"{layout.EMBEDDINGS} holds values that are not finite.")
    labels = arrays.get("labels")
    if labels is not None and (labels.shape != (len(paths),) or labels.dtype.kind not in "iu"):
        labels = None
    classes = as_text(arrays["classes"]) if "classes" in arrays else ()
    return Embeddings(values=values, paths=paths, labels=labels, classes=classes)


def read_views(run_folder: Path) -> list[ViewGroup]:
    """Return the groups of ``pictures/views.npz``, the target views first."""
    arrays = read_arrays(run_folder / layout.VIEWS, "swav train draws it")
    names = as_text(arrays["names"]) if "names" in arrays else ()
    groups = []
    for key in sorted((key for key in arrays if key.startswith("group")), key=_group_number):
        views = arrays[key]
        if views.ndim != 5 or views.dtype != np.uint8 or len(views) < len(names):
            raise Absent(f"The array {key} of {layout.VIEWS} does not hold pictures.")
        groups.append(ViewGroup(names=names, views=views))
    if not groups or not names:
        raise Absent(f"{layout.VIEWS} holds no views.")
    return groups


def _evaluation(result: dict[str, Any], stem: str) -> Evaluation:
    task, metrics = str(result.get("task", stem)), _numbers(result.get("metrics"))
    about, lead = _mapping(result.get("about")), result.get("lead")
    intervals = {
        name: (float(bounds[0]), float(bounds[1]))
        for name, bounds in _mapping(result.get("intervals")).items()
        if isinstance(bounds, list) and len(bounds) == 2 and all(map(_is_number, bounds))
    }
    return Evaluation(
        task=task,
        title=str(result.get("title") or task),
        name=str(result.get("name", "")),
        protocol=_protocol(result),
        conditions={**_mapping(result.get("protocol")), **_counts(result)},
        metrics=metrics,
        about={name: _metric(name, _mapping(about.get(name))) for name in metrics},
        lead=lead if isinstance(lead, str) and lead in metrics else next(iter(metrics), None),
        finding=str(result.get("finding", "")),
        intervals=intervals,
        baselines={
            name: _numbers(metrics) for name, metrics in _mapping(result.get("baselines")).items()
        },
    )


def _metric(name: str, about: dict[str, Any]) -> Metric:
    higher_is_better = about.get("higher_is_better")
    return Metric(
        title=str(about.get("title") or name),
        is_share=about.get("is_share") is True,
        higher_is_better=higher_is_better if isinstance(higher_is_better, bool) else None,
    )


def _protocol(result: dict[str, Any]) -> dict[str, Any]:
    details = _mapping(result.get("details"))
    shown = _mapping(details.get("input"))
    return {
        **_mapping(result.get("protocol")),
        **_mapping(result.get("counts")),
        **{name: value for name, value in details.items() if not isinstance(value, dict)},
        **{name: shown[name] for name in ("interpolation", "crop_pct") if name in shown},
        "seeds": result.get("seeds", []),
    }


def _counts(result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of pictures and classes; that of features is the network's."""
    counts = _mapping(result.get("counts"))
    return {name: number for name, number in counts.items() if name != "features"}


def _cluster(name: str, members: list[tuple[float, str]]) -> Cluster:
    # NaN compares with nothing and would leave the list unsorted: it comes last
    typical = sorted(members, key=lambda member: -member[0] if member[0] == member[0] else 0.0)
    return Cluster(
        name=name,
        paths=tuple(path for _, path in typical),
        probabilities=tuple(probability for probability, _ in typical),
    )


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""With which spreadsheets begin what they calculate."""


def csv_path(cell: str) -> str:
    """Return the name of a picture as it was before a cell of a table had to be no formula."""
    return cell[2:] if cell.startswith("./") and cell[2:].startswith(FORMULA_STARTS) else cell


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a file with a header."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        try:
            yield from csv.DictReader(file)
        except csv.Error as error:
            raise Absent(f"{path.name} cannot be read.") from error


def array_names(path: Path) -> set[str]:
    """Return the names of the arrays in a ``.npz``, none if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive)
    except (ValueError, OSError, EOFError, BadZipFile, TypeError):
        return set()


def read_arrays(path: Path, remedy: str, *, only: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of a ``.npz``, by default all of them."""
    if not path.is_file():
        raise Absent(f"The run has no {path.name}: {remedy}.")
    try:
        # a pickle would run the code of whoever wrote the folder
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in only or archive}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise Absent(f"{path.name} cannot be read.") from error


def as_text(names: np.ndarray) -> tuple[str, ...]:
    """Return an array of names as text; bytes that are not UTF-8 become surrogates."""
    if names.dtype.kind == "S":
        return tuple(name.decode("utf-8", "surrogateescape") for name in names.tolist())
    return tuple(str(name) for name in names.tolist())


def _group_number(key: str) -> tuple[int, str]:
    digits = key.removeprefix("group")
    return (int(digits) if digits.isdecimal() else 0, key)


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Absent(f"{name} cannot be read.") from error
    if not isinstance(value, dict):
        raise Absent(f"{name} cannot be read.")
    return value


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(value: object) -> dict[str, float]:
    return {key: float(number) for key, number in _mapping(value).items() if _is_number(number)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: object) -> float:
    """Return a float; NaN for what is not a number."""
    try:
        return float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        return math.nan
