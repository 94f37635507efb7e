"""How often do measures without labels pick the better of a trained network and its start?

A row for each run folder: the measures of both networks that the guard has written into it
(swav/evals/label_free.py), and the truth, which is their accuracy by labels. DATA is that of the
run, labelled; in parts, the truth is of held-out pictures; of one set, kNN leaves one out and the
linear probe holds out a fifth of each class.

    python benchmarks/guard_study.py RUN DATA [RUN DATA ...] --out FILE.csv
    python benchmarks/guard_study.py --summary FILE.csv

Rows that are in the file are kept, so it can be continued; a run that fails is named, and left out.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import csv_rows

from swav.data.sources.pictures import Pictures
from swav.evals import KNNConfig, LinearConfig, extract, knn, linear
from swav.evals.harness.eval_data import EvalData, fit_and_score
from swav.evals.harness.subject import Shown
from swav.evals.label_free import Measures, some
from swav.recipes.start_network import RANDOM
from swav.run_folder.record import read_record
from swav.training.guard import decide
from swav.training.start import Before
from swav.training.trained_run import load

MOST_SCORED = 2000
"""Pictures to learn from, and as many held-out ones, evenly through each set."""
MEASURES = tuple(field.name for field in fields(Measures))
TRUTHS = ("knn", "linear")
COLUMNS = (
    *("run", "data", "init", "method", "seed", "epochs", "learning_rate", "tune", "images"),
    *(f"{when}_{name}" for name in (*MEASURES, *TRUTHS) for when in ("start", "trained")),
    *("overlap", "compared", "seconds"),
)

Row = Mapping[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("pairs", nargs="*", metavar="RUN DATA")
    parser.add_argument("--out", type=Path, help="where rows are appended")
    parser.add_argument("--summary", type=Path, help="say what a file's rows say")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.summary:
        print(summary(read_rows(given.summary)))
        return
    if not given.out or not given.pairs or len(given.pairs) % 2:
        parser.error("give RUN DATA [RUN DATA ...] --out FILE.csv, or --summary FILE.csv")
    failed = study(
        list(zip(given.pairs[::2], given.pairs[1::2], strict=True)), given.out, given.device
    )
    sys.exit(1 if failed else 0)


def study(pairs: Sequence[tuple[str, str]], target: Path, device: str = "cpu") -> list[str]:
    """Append the rows that are missing, and return the runs that failed."""
    failed = []
    truths: Truths = {}
    done = {(row["run"], row["data"]) for row in read_rows(target)}
    for run, data in pairs:
        if (run, data) in done:
            continue
        try:
            row = measured(run, data, device, truths)
        except (OSError, ValueError, RuntimeError) as error:
            print(f"{run}: {error}", file=sys.stderr)
            failed.append(run)
            continue
        csv_rows.append(target, row, COLUMNS)
        done.add((run, data))
        print(f"{run}: {row['seconds']} s", file=sys.stderr)
    return failed


Truths = dict[str, dict[str, float]]
"""Of networks that several runs started from, by what they and their pictures are."""


def measured(run: str, data: str, device: str, truths: Truths) -> dict[str, object]:
    """Return the row of one run."""
    started = time.monotonic()
    trained_run = load(run, device=device)
    if trained_run.is_start:
        raise ValueError("it handed out its start: swav train --resume --keep trained --out RUN")
    guard = read_record(Path(run)).get("guard", {})
    if "trained" not in guard:
        raise ValueError(f"the guard compared nothing: {guard.get('skipped', 'it never ended')}")
    config = trained_run.config
    trained = Shown(trained_run.backbone, trained_run.transform)
    start = Before(
        config=config,
        folder=Path(run),
        num_images=trained_run.num_images,
        device=next(trained.network.parameters()).device,
    ).network
    parts = fit_and_score(replace(config.data, data=data, split=None))
    seed = config.seed if config.init == RANDOM else None
    key = repr((data, config.init, seed, config.backbone, start.transform))
    if key not in truths:
        truths[key] = truth(start, parts)
    row: dict[str, object] = {
        "run": run,
        "data": data,
        "init": config.init,
        "method": config.method.name,
        "seed": config.seed,
        "epochs": config.epochs,
        "learning_rate": config.optim.learning_rate,
        "tune": str(config.tuning),
        "images": trained_run.num_images,
        "overlap": guard["overlap"],
        "compared": guard["num_images"],
    }
    for when, values in (
        ("start", guard["start"] | truths[key]),
        ("trained", guard["trained"] | truth(trained, parts)),
    ):
        row |= {f"{when}_{name}": value for name, value in values.items()}
    return row | {"seconds": round(time.monotonic() - started, 1)}


def truth(shown: Shown, parts: EvalData) -> dict[str, float]:
    """Return the accuracy of nearest neighbours and of a linear probe."""

    def features(pictures: Pictures):  # type: ignore[no-untyped-def]
        device = next(shown.network.parameters()).device
        return extract(shown.network, some(pictures, MOST_SCORED), shown.transform, device=device)

    train = features(parts.train)
    test = None if parts.test is None else features(parts.test)
    return {
        "knn": knn.run(KNNConfig(k=(10,)), train, test).metrics["top1_k10"],
        "linear": linear.run(LinearConfig(), train, test).metrics["top1"],
    }


def read_rows(path: Path) -> list[Row]:
    """Return the whole rows of a file."""
    return csv_rows.read_rows(path, COLUMNS)


class Tally(NamedTuple):
    """How often something picks the better network, where the two differ."""

    right: int
    wrong: int

    def __str__(self) -> str:
        total = self.right + self.wrong
        return f"{self.right} of {total} ({self.right / total:.0%})" if total else "no rows"


def sign_tally(rows: Sequence[Row], measure: str, truth_name: str) -> Tally:
    """Return how often the larger measure belongs to the more accurate network."""
    products = [gain(row, measure) * gain(row, truth_name) for row in rows]
    return Tally(sum(each > 0 for each in products), sum(each < 0 for each in products))


def gain(row: Row, name: str) -> float:
    """Return by how much the trained network is above its start."""
    return float(row[f"trained_{name}"]) - float(row[f"start_{name}"])


def picked(row: Row) -> str:
    """Return the winner by the rule as it is now."""
    start, trained = (
        Measures(**{name: float(row[f"{when}_{name}"]) for name in MEASURES})
        for when in ("start", "trained")
    )
    return decide(start, trained, start_is_trained=row["init"] != RANDOM)[0]


def confusion(rows: Sequence[Row], truth_name: str) -> dict[tuple[str, str], int]:
    """Return how many rows there are by (truth, picked); equals count as the start's."""
    counts = {(better, won): 0 for better in ("start", "trained") for won in ("start", "trained")}
    for row in rows:
        counts["trained" if gain(row, truth_name) > 0 else "start", picked(row)] += 1
    return counts


def costs(rows: Sequence[Row], truth_name: str) -> list[float]:
    """Return by how many points each wrong pick is below the better network."""
    return [
        100 * abs(gain(row, truth_name))
        for row in rows
        if gain(row, truth_name) and (gain(row, truth_name) > 0) != (picked(row) == "trained")
    ]


def overlaps(rows: Sequence[Row], truth_name: str, better: str) -> str:
    """Return the range of overlaps where one of both networks is better."""
    found = [
        float(row["overlap"])
        for row in rows
        if (gain(row, truth_name) > 0) == (better == "trained")
    ]
    return f"{min(found):.2f} to {max(found):.2f}" if found else "no rows"


def summary(rows: Sequence[Row]) -> str:
    """Return what the rows say: all, and apart by whether the start was trained."""
    kinds = {
        "all runs": rows,
        "starts that were trained": [row for row in rows if row["init"] != RANDOM],
        "untrained starts": [row for row in rows if row["init"] == RANDOM],
    }
    return "\n\n".join(_of_kind(kind, some_rows) for kind, some_rows in kinds.items() if some_rows)


def _of_kind(kind: str, rows: Sequence[Row]) -> str:
    lines = [
        f"## {kind} (n = {len(rows)})",
        "",
        "| larger measure | by kNN | by linear |",
        "|---|---|---|",
    ]
    for measure in MEASURES:
        tallies = " | ".join(str(sign_tally(rows, measure, name)) for name in TRUTHS)
        lines.append(f"| {measure} | {tallies} |")
    for name in TRUTHS:
        counts, lost = confusion(rows, name), costs(rows, name)
        near = {better: overlaps(rows, name, better) for better in ("trained", "start")}
        mean = sum(lost) / len(lost) if lost else 0.0
        lines += [
            "",
            f"Overlap by {name}, lowest to highest: {near['trained']} where the trained network is "
            f"better, {near['start']} elsewhere",
            "",
            f"The rule, by {name}: {len(lost)} of {len(rows)} wrong, "
            f"{mean:.1f} points each on average, {sum(lost) / len(rows):.1f} over all runs",
            "",
            "| better | start picked | trained picked |",
            "|---|---|---|",
            *(
                f"| {better} | {counts[better, 'start']} | {counts[better, 'trained']} |"
                for better in ("start", "trained")
            ),
        ]
    return "\n".join(lines)


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written."""


if __name__ == "__main__":
    main()
