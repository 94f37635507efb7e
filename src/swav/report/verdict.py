"""What a reader wants to know first: is the run healthy, is it any good, what comes next."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from swav.report.wording import (
    BASELINES,
    count,
    evaluation_title,
    is_start,
    last,
    printable,
    score,
    standing,
    warning,
)
from swav.report.wording import verdict as comparison
from swav.run_folder.readers import Evaluation
from swav.run_folder.record import hands_out_start

Kind = Literal["good", "bad", "unknown"]
MOST_NUMBERS = 8
FEW_USED, MANY_USED = 0.1, 0.5
"""Shares of the prototypes in use: below the first it has collapsed, from the other it is well."""


@dataclass(frozen=True, kw_only=True)
class VerdictLine:
    """One sentence of the verdict."""

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number of the first screen, and what would be good."""

    title: str
    value: str
    good: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do next: why, and the command."""

    why: str
    command: str


def verdict_lines(record: Mapping[str, Any], scores: Sequence[Evaluation]) -> list[VerdictLine]:
    """Return how the network compares with its baselines, one sentence for each outcome.

    ``record`` is ``run.json``: what it says of the run's state belongs here too.
    """
    lines = []
    if record.get("status") in ("running", "stopped"):
        text = f"Not finished ({record['status']}): the page shows what is there."
        lines.append(VerdictLine(kind="unknown", text=text))
    guard = record.get("guard")
    if isinstance(guard, dict) and guard.get("winner") == "trained":
        lines.append(VerdictLine(kind="good", text=comparison(record)))
    if any(map(is_start, scores)) and not hands_out_start(record):  # which says so itself
        text = "The network is the one it started from, as it was: the run adds clusters to it."
        lines.append(VerdictLine(kind="unknown", text=text))
    tally = _tally(scores)
    if not tally:
        text = (
            "Whether it is any good is not known: it was compared neither with raw pixels nor with "
            "the untrained network."
        )
        return [*lines, VerdictLine(kind="unknown", text=text)]
    return [*lines, *_compared(tally)]


def health_line(curves: Mapping[str, np.ndarray]) -> VerdictLine | None:
    """Return whether the training went well, None if its log does not say."""
    fault = warning(curves)
    if fault:
        return VerdictLine(kind="bad", text=fault)
    loss, ln_k, used = (last(curves, name) for name in ("loss", "ln_k", "prototypes_used"))
    if loss > ln_k:
        text = (
            f"The loss ended at {loss:.3f}, above ln K = {ln_k:.3f}, the loss of a guess: the "
            "network has learnt next to nothing yet."
        )
        return VerdictLine(kind="bad", text=text)
    signs = []
    if loss < ln_k:
        signs.append(f"the loss ended {100 * (1 - loss / ln_k):.0f} % below that of a guess (ln K)")
    if used >= FEW_USED:
        signs.append(f"{100 * used:.0f} % of the prototypes are in use")
    if not signs:
        return None
    return VerdictLine(kind="good", text=f"The training is healthy: {' and '.join(signs)}.")


def numbers(scores: Sequence[Evaluation], curves: Mapping[str, np.ndarray]) -> list[Number]:
    """Return at most eight numbers, each with what is good: scores first, then signs of health."""
    some = [_leading(evaluation) for evaluation in scores]
    health = [_loss(curves), _used(curves), _entropy(curves), _rank(scores)]
    known_health = [number for number in health if number is not None]
    known = [number for number in some if number is not None]
    return [*known[: MOST_NUMBERS - len(known_health)], *known_health]


def next_steps(
    record: Mapping[str, Any],
    scores: Sequence[Evaluation],
    curves: Mapping[str, np.ndarray],
    *,
    run: str,
) -> list[Step]:
    """Return what to do next, first what mends the run if it needs that."""
    run = shlex.quote(run)
    if record.get("status") == "stopped":
        return [Step(why="Train the rest", command=f"swav train --resume --out {run}")]
    tally = _tally(scores)
    health = health_line(curves)
    weak = (health is not None and health.kind == "bad") or any(
        beaten < len(tasks) for beaten, tasks in tally.values()
    )
    steps = []
    if weak and record.get("start") is None:
        why = "Start from published weights, which helps most with few pictures"
        steps.append(Step(why=why, command="swav train DATA --init timm"))
    epochs = last(curves, "epoch")
    if weak and epochs > 0:
        command = f"swav train DATA --epochs {math.ceil(2 * epochs)}"
        steps.append(Step(why="Train for longer", command=command))
    if not tally:
        why = "Measure it beside its baselines"
        steps.append(Step(why=why, command=f"swav evaluate {run}"))
    steps.append(Step(why="Look at the pictures, name clusters", command=f"swav view {run}"))
    why = "Use the features elsewhere"
    steps.append(Step(why=why, command=f"swav embed {run} DATA --to features.npz"))
    return steps


def _tally(scores: Sequence[Evaluation]) -> dict[str, tuple[int, dict[str, int]]]:
    """Return for each baseline how many tasks beat it, and the outcome of each task by title."""
    tally = {}
    for baseline in BASELINES:
        tasks = {
            evaluation_title(evaluation): standing(evaluation, baseline)
            for evaluation in scores
            if evaluation.lead in evaluation.baselines.get(baseline, {})
            and not (baseline == "start" and is_start(evaluation))
        }
        if tasks:
            tally[baseline] = (sum(outcome > 0 for outcome in tasks.values()), tasks)
    return tally


def _compared(tally: Mapping[str, tuple[int, Mapping[str, int]]]) -> list[VerdictLine]:
    """Return a sentence for the baselines that are beaten everywhere, and one for each other."""
    clear = [name for name, (beaten, tasks) in tally.items() if beaten == len(tasks)]
    lines = []
    if clear:
        better = _listed([BASELINES[name] for name in clear])
        most = max(len(tally[name][1]) for name in clear)
        text = f"Better than {better} in {_all(most)}."
        lines.append(VerdictLine(kind="good", text=text))
    failures: dict[str, list[str]] = {}
    for name, (beaten, tasks) in tally.items():
        if name not in clear:
            failed = _listed([title.lower() for title, outcome in tasks.items() if outcome <= 0])
            rest = f" ({beaten} of {count(len(tasks), 'measure')} better)" if beaten else ""
            failures.setdefault(f"by {failed}{rest}", []).append(BASELINES[name])
    for measures, names in failures.items():
        text = f"Not better than {_listed(names, last_word='or')} {measures}."
        lines.append(VerdictLine(kind="bad", text=text))
    return lines


def _leading(evaluation: Evaluation) -> Number | None:
    """Return the leading score of a task beside the best of its baselines, None without any."""
    metric = evaluation.lead
    if metric is None:
        return None
    about = evaluation.about[metric]
    known = {
        name: values[metric]
        for name, values in evaluation.baselines.items()
        if metric in values and not (name == "start" and is_start(evaluation))
    }
    if not known or about.higher_is_better is None:
        return None
    pick = max if about.higher_is_better else min
    best = pick(known, key=lambda name: known[name])
    side = "above" if about.higher_is_better else "below"
    return Number(
        title=f"{evaluation_title(evaluation)}: {printable(about.title)}",
        value=score(about, evaluation.metrics[metric]),
        good=f"good: {side} {score(about, known[best])}, {BASELINES.get(best, printable(best))}",
        kind="good" if standing(evaluation, best) > 0 else "bad",
    )


def _loss(curves: Mapping[str, np.ndarray]) -> Number | None:
    loss, ln_k, floor = (last(curves, name) for name in ("loss", "ln_k", "loss_floor"))
    if not (np.isfinite(loss) and np.isfinite(ln_k)):
        return None
    good = f"good: well below a guess, ln K = {ln_k:.3f}"
    good += f"; the least possible is {floor:.3f}" if np.isfinite(floor) else ""
    kind: Kind = "good" if loss < 0.99 * ln_k else "bad"
    return Number(title="Loss at the end", value=f"{loss:.3f}", good=good, kind=kind)


def _used(curves: Mapping[str, np.ndarray]) -> Number | None:
    used = last(curves, "prototypes_used")
    if not np.isfinite(used):
        return None
    good = f"good: above {100 * MANY_USED:.0f}\u00a0%; below {100 * FEW_USED:.0f}\u00a0% it failed"
    kind: Kind = "good" if used >= MANY_USED else "bad"
    return Number(title="Prototypes in use", value=f"{100 * used:.1f}\u00a0%", good=good, kind=kind)


def _entropy(curves: Mapping[str, np.ndarray]) -> Number | None:
    entropy = last(curves, "code_entropy")
    if not np.isfinite(entropy):
        return None
    good = "0: one prototype a picture, 1: all alike; good: below 0.95"
    kind: Kind = "good" if entropy < 0.95 else "bad"
    return Number(title="Entropy of the codes", value=f"{entropy:.2f}", good=good, kind=kind)


def _rank(scores: Sequence[Evaluation]) -> Number | None:
    """Return the effective rank of the features, None unless the untrained network's is known."""
    for evaluation in scores:
        untrained = evaluation.baselines.get("random", {}).get("rankme")
        if untrained is None or "rankme" not in evaluation.metrics:
            continue
        rank = evaluation.metrics["rankme"]
        return Number(
            title="Effective rank of the features",
            value=f"{rank:.1f}",
            good=f"good: above {untrained:.1f}, the untrained network; near 1 it collapsed",
            kind="good" if rank > untrained else "bad",
        )
    return None


def _listed(words: Sequence[str], *, last_word: str = "and") -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    return f" {last_word} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _all(number: int) -> str:
    return {1: "the one measure", 2: "both measures"}.get(number, f"all {number} measures")
