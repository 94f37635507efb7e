"""The sentences and numbers of the page: what was trained on what, and how good it is."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from swav.run_folder import layout
from swav.run_folder.readers import Evaluation
from swav.run_folder.record import hands_out_start
from swav.run_folder.result import Metric

BASELINES = {
    "start": "the start, frozen",
    "scratch": "a run from scratch",
    "random": "the untrained network",
    "pixels": "raw pixels",
    "patch-kmeans": "patch k-means",
}

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FOLDERS = re.compile(r"(?<![\w.~/…<])(?:/(?:[^/\s'\"<>]+/)+|[A-Za-z]:\\(?:[^\\\s'\"<>]+\\)+)")
_CREDENTIALS = re.compile(r"//[^/@\s]+@")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of a scorecard: a value, and where it ends on a scale from 0 to 100."""

    label: str
    value: str
    percent: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """The leading metric of one evaluation beside its baselines."""

    title: str
    metric: str
    bars: tuple[Bar, ...]


def printable(text: object) -> str:
    """Return text that is safe to show: control, bidi and undecodable characters are spelt out."""
    return "".join(map(_printable_character, str(text)))


def private(text: str) -> str:
    """Return text without the folders of absolute paths and without credentials in addresses."""
    return _CREDENTIALS.sub("//…@", _FOLDERS.sub("…/", text))


def count(number: int, noun: str) -> str:
    """Return ``1 picture``, ``2 pictures``, ``1,906 pictures``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return ``48 s``, ``4 min 12 s`` or ``1 h 03 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def score(metric: Metric, value: float) -> str:
    """Return a metric's value: shares as percentages, everything else to three decimals."""
    if metric.is_share:
        return f"{100 * value:.1f}\u00a0%"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def evaluation_title(evaluation: Evaluation) -> str:
    """Return its task in words, and the name of its protocol if it has one."""
    named = f" ({printable(evaluation.name)})" if evaluation.name else ""
    return printable(evaluation.title) + named


def baseline_title(baseline: str) -> str:
    """Return a baseline's name for a column or a bar."""
    return BASELINES[baseline].removeprefix("the ").removeprefix("a ").capitalize()


def baselines_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the baselines that any of the evaluations has, in the order of columns."""
    return [
        name
        for name in BASELINES
        if any(evaluation.baselines.get(name) for evaluation in evaluations)
    ]


def in_order(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return the evaluations that can be said in a sentence first, each half by its titles."""
    return sorted(evaluations, key=lambda evaluation: (not evaluation.finding, evaluation.title))


def headline(run: Mapping[str, Any]) -> str:
    """Return what was trained on what, in one sentence."""
    method = run.get("method_title") or run.get("method")  # earlier runs have no title
    by = f" with {printable(method)}" if method else ""
    # its other arguments would fill the headline; they stand among the settings
    backbone = printable(run.get("backbone") or "network").partition(" (")[0]
    pictures = "pictures"
    if isinstance(run.get("num_images"), int):
        pictures = count(run["num_images"], "picture")
    data = f" of “{printable(data_name(str(run['data'])))}”" if run.get("data") else ""
    if hands_out_start(run):
        return f"A {backbone} as it was before training, with clusters of {pictures}{data}"
    if run.get("tune") == "head":
        return f"Clusters{by} of {pictures}{data}, on features of a {backbone}, without labels"
    return f"A {backbone} trained{by} on {pictures}{data}, without labels"


def data_name(data: str) -> str:
    """Return the name of a data set without the folders that lead to it."""
    kind, colon, folder = data.partition(":")
    if colon and len(kind) > 1:
        return f"{kind}:{PurePath(folder).name}"
    return PurePath(data.replace("\\", "/")).name or data


def findings(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Return the leading score of each evaluation that has a sentence, and the sentence."""
    sentences = []
    for evaluation in evaluations:
        metric = evaluation.lead
        if metric is None or not evaluation.finding:
            continue
        against = [
            _comparison(evaluation, metric, baseline)
            for baseline in BASELINES
            if metric in evaluation.baselines.get(baseline, {})
            and not (baseline == "start" and is_start(evaluation))
        ]
        colon = f": {', '.join(against)}" if against else ""
        value = score(evaluation.about[metric], evaluation.metrics[metric])
        sentences.append((value, f"{printable(evaluation.finding)}{colon}."))
    return sentences


def warning(curves: Mapping[str, np.ndarray]) -> str:
    """Return what is wrong with a run that ended collapsed, the empty string for a healthy one."""
    loss, ln_k, used = (last(curves, name) for name in ("loss", "ln_k", "prototypes_used"))
    # collapsed runs ended within 0.2 % of ln K, the cured one was 22 % below it (docs/log.md)
    if abs(loss - ln_k) <= 0.01 * ln_k:
        return (
            f"The loss ended at {loss:.3f}, within 1 % of ln K = {ln_k:.3f}, the loss of a guess: "
            f"this run learnt next to nothing. {layout.LOG} says what helps with its method."
        )
    if used < 0.1:
        return (
            f"Only {100 * used:.1f} % of the prototypes were in use at the end: the pictures have "
            "collapsed onto a few of them. Fewer prototypes or a larger batch often help."
        )
    return ""


def verdict(run: Mapping[str, Any]) -> str:
    """Return what the comparison of a run with its start said, nothing if there is none.

    If the start is the run's model, that comes first, and last what may help.
    """
    guard = _guard(run)
    keys = ("statement", "reason", "remedy") if hands_out_start(run) else ("reason",)
    return printable(" ".join(str(guard[key]) for key in keys if guard.get(key)))


def drawbacks(run: Mapping[str, Any], evaluations: Sequence[Evaluation]) -> list[str]:
    """Return why the network of a run is no result, a sentence each, and what to do about it last.

    It lost to its start without labels, or has fewer right nearest neighbours than what needs no
    training, by more than the interval of the pictures.
    """
    guard, is_start = _guard(run), hands_out_start(run)
    found = [verdict(run)] if guard.get("winner") == "start" and not is_start else []
    found += [
        sentence
        for evaluation in evaluations
        if evaluation.task == "knn" and (sentence := _below_baselines(evaluation))
    ]
    has_remedy = "remedy" in guard and not is_start  # of which the verdict has it
    return [*found, printable(guard["remedy"])] if found and has_remedy else found


def without_start(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation of the start itself, which is no baseline of its own."""
    baselines = {name: rest for name, rest in evaluation.baselines.items() if name != "start"}
    return replace(evaluation, baselines=baselines)


def scorecard(evaluation: Evaluation) -> Scorecard | None:
    """Return the leading metric as bars: the baselines, then this run."""
    metric = evaluation.lead
    if metric is None:
        return None
    about = evaluation.about[metric]
    values = {
        baseline_title(name): evaluation.baselines[name][metric]
        for name in reversed(BASELINES)
        if metric in evaluation.baselines.get(name, {})
    } | {"This run": evaluation.metrics[metric]}
    low, high = evaluation.intervals.get(metric, (0.0, 0.0))
    full = max(*values.values(), high, 1e-9) * 1.04
    bars = [
        Bar(
            label=label,
            value=score(about, value),
            percent=_percent(value, full),
            interval=(_percent(low, full), _percent(high, full))
            if label == "This run" and metric in evaluation.intervals
            else None,
        )
        for label, value in values.items()
    ]
    title = evaluation_title(evaluation)
    return Scorecard(title=title, metric=printable(about.title), bars=tuple(bars))


def _guard(run: Mapping[str, Any]) -> Mapping[str, Any]:
    guard = run.get("guard")
    return guard if isinstance(guard, dict) else {}


def _below_baselines(evaluation: Evaluation) -> str:
    """Return that an evaluation is below what needs no training, the empty string if it is not."""
    metric = evaluation.lead
    if metric is None:
        return ""
    value, about = evaluation.metrics[metric], evaluation.about[metric]
    _, high = evaluation.intervals.get(metric, (value, value))
    # patch k-means is fitted on the pictures, and stronger
    above = [
        f"{title} ({score(about, evaluation.baselines[name][metric])})"
        for name, title in BASELINES.items()
        if name != "patch-kmeans" and evaluation.baselines.get(name, {}).get(metric, 0.0) > high
    ]
    if not above:
        return ""
    return (
        f"By labels, {score(about, value)} {printable(evaluation.finding)}: fewer than with "
        f"{' and '.join(above)}."
    )


def standing(evaluation: Evaluation, baseline: str) -> int:
    """Return 1 if the leading metric is better than that of a baseline, -1 if worse, else 0."""
    metric = evaluation.lead
    assert metric is not None
    value, reference = evaluation.metrics[metric], evaluation.baselines[baseline][metric]
    low, high = evaluation.intervals.get(metric, (value, value))
    # within the interval of the pictures, a difference is not claimed
    if low <= reference <= high:
        return 0
    higher = 1 if value > reference else -1
    return -higher if evaluation.about[metric].higher_is_better is False else higher


def is_start(evaluation: Evaluation) -> bool:
    """Return whether what was scored is the start itself, which ``--tune head`` leaves as it is.

    It cannot be better than itself.
    """
    start = evaluation.baselines.get("start", {})
    return bool(start) and all(evaluation.metrics.get(name) == start[name] for name in start)


def _comparison(evaluation: Evaluation, metric: str, baseline: str) -> str:
    value, reference = evaluation.metrics[metric], evaluation.baselines[baseline][metric]
    about, outcome = evaluation.about[metric], standing(evaluation, baseline)
    name = f"{BASELINES[baseline]} ({score(about, reference)})"
    began = f"{'' if outcome > 0 else 'not '}better than where it began, "
    first = began if baseline == "start" and about.higher_is_better is not None else ""
    if not outcome:
        return f"{first}not clearly different from {name}"
    gap = f"{100 * abs(value - reference):.1f} points" if about.is_share else "clearly"
    return f"{first}{gap} {'above' if value > reference else 'below'} {name}"


def _percent(value: float, full: float) -> float:
    return round(min(max(100 * value / full, 0.0), 100.0), 2)


def last(curves: Mapping[str, np.ndarray], name: str) -> float:
    """Return the last finite value of a curve, NaN if it has none."""
    finite = curves[name][np.isfinite(curves[name])] if name in curves else np.zeros(0)
    return float(finite[-1]) if len(finite) else math.nan


def _printable_character(character: str) -> str:
    if character in _BIDI or unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
        return character.encode("unicode_escape").decode("ascii")
    return character
