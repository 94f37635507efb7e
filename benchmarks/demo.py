"""The demo over seeds: both runs beside pixels, an untrained network and patch k-means.

    python benchmarks/demo.py [--seeds 0 1 2] [--out runs/demo-seeds]

Each seed is `swav demo --seed SEED --out OUT/seed-SEED` with its time; one that is done is not
done again. Prints a table in Markdown: of each score the mean and deviation over seeds, and of each
seed the interval over pictures and whether all baselines lie below it. Run it on a machine that
does nothing else: the demo promises five minutes on two cores.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from swav.commands.demo import demo

SHOWN = {
    "knn": ("top1_k10", "kNN, k = 10"),
    "linear": ("top1", "linear probe"),
    "clusters": ("kmeans_nmi", "k-means NMI"),
}
"""Of each task the metric that is shown, and its heading."""
BASELINES = ("scratch", "random", "pixels", "patch-kmeans")
SECONDS = "seconds.txt"


def measured(seed: int, out: Path) -> Path:
    """Return the run folder of a seed, trained if need be."""
    folder = out / f"seed-{seed}"
    if not (folder / SECONDS).exists():
        began = time.monotonic()
        demo(folder, seed=seed)
        (folder / SECONDS).write_text(f"{time.monotonic() - began:.0f}\n")
    return folder


def scores(folder: Path, task: str) -> dict[str, Any]:
    """Return the leading score of a task with its interval, and those beside it."""
    metric, _ = SHOWN[task]
    result = json.loads((folder / "eval" / f"{task}.json").read_text())
    beside = {name: values[metric] for name, values in result["baselines"].items()}
    return {"run": result["metrics"][metric], "interval": result["intervals"][metric], **beside}


def table(folders: list[Path]) -> list[str]:
    """Return the lines of the table: mean and deviation over seeds."""
    lines = ["| score, % | from lite0 | from scratch | untrained | raw pixels | patch k-means |"]
    lines.append("|---|---|---|---|---|---|")
    for task, (_, title) in SHOWN.items():
        found = [scores(folder, task) for folder in folders]
        cells = (spread([each[name] for each in found]) for name in ("run", *BASELINES))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def spread(values: list[float]) -> str:
    """Return mean and deviation in percent."""
    deviation = f" +- {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{deviation}"


def sureness(folder: Path) -> list[str]:
    """Return a line for each score of a seed: its interval, and the best of its baselines."""
    lines = []
    for task, (_, title) in SHOWN.items():
        found = scores(folder, task)
        low, high = found["interval"]
        best = max(BASELINES, key=lambda name: found[name])
        outcome = "below" if found[best] < low else "NOT below"
        lines.append(
            f"{folder.name}, {title}: {100 * found['run']:.1f} ({100 * low:.1f} to "
            f"{100 * high:.1f}); {best} {100 * found[best]:.1f} is {outcome}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/demo-seeds"))
    options = parser.parse_args()
    folders = [measured(seed, options.out) for seed in options.seeds]
    print("\n".join(table(folders)))
    for folder in folders:
        print(f"{folder.name}: {int((folder / SECONDS).read_text())} s")
        print("\n".join(sureness(folder)))


if __name__ == "__main__":
    main()
