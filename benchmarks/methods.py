"""Every method on the same 20,000 CIFAR-10 pictures, network, crops and number of pictures seen.

    python benchmarks/methods.py CIFAR [--out runs/methods] [--epochs 5] [--final]

CIFAR is DATA with parts train and test, such as cifar10:FOLDER or a folder with train/CLASS/*.jpg.
The recipes are METHOD-cifar10-cpu with smaller crops, so that more pictures are seen in a minute.
Training sees no labels. kNN (k = 20) and the linear probes, of the output and of every stage, fit
on the same 20,000 pictures and score 5,000 others of train; with --final they score the test part
instead, which is to be read once, and the best stage is the one that was best before. Pictures are
shown at the size of a method's first crops, and the untrained network beside it sees the same.
With --imbalance 100 the classes to learn from are long-tailed, the largest 100 times the smallest,
and SwAV is trained with equal shares of the prototypes, with a power law, and with shares that the
pictures may choose; give it an --out of its own. With --gain the methods for which small crops are
published (or those of them that are named with --methods) are trained with and without them, for
the same epochs and for the same time. A stopped
command goes on where it was: runs continue from their checkpoints, and each result is a line of
tune.jsonl or final.jsonl in the output folder as soon as there is one. Two commands with different
--methods may share the folder, each on a core of its own (taskset), once there are the baselines.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

import swav
from swav.data.sources.open import SourceConfig, from_arrays
from swav.data.sources.pictures import Pictures
from swav.evals import Features, KNNConfig, extract, knn, layers, linear, pixel_features
from swav.evals.layers import LayersConfig, stage_features
from swav.ops.assign import Prior
from swav.recipes import RECIPES, make_config
from swav.recipes.train_config import TrainConfig
from swav.training.networks import build_objective, transform_of

PICTURES, HELD_OUT = 20_000, 5_000
SEEDS = {"swav": (0, 1, 2), "simclr": (0, 1, 2)}
"""Of methods that are trained more than once."""
PRIORS: dict[str, dict[str, Any]] = {
    "swav": {},
    "swav-power-law": {"prior": Prior(exponent=1.0)},
    "swav-unbalanced": {"prior": Prior(strength=0.25)},
}
"""What is trained on long-tailed classes."""
GAIN = ("swav", "deepcluster", "sela", "simclr", "byol")
"""What is trained with and without small crops."""
SAME_EPOCHS, SAME_TIME = "-two-crops", "-two-crops-same-time"
RECIPE = "cifar10-cpu"
SMALLER = {48: 32, 40: 32, 28: 20, 96: 72}
"""Sides of crops in place of those of the recipes; tiles of a view of 72 pixels have 18."""
UNTRAINED = "untrained"
PROBE = LayersConfig(max_features=512)
SHOWN = {"knn": "kNN", "top1": "linear", "best": "linear, best stage"}
"""Measures in the table, and their headings; the files have every stage."""


class Sets(NamedTuple):
    """Disjoint pictures: to learn from, and to score."""

    fit: Pictures
    score: Pictures


def sets(data: str, *, final: bool, number: int, imbalance: float) -> Sets:
    """Return the pictures, drawn by a fixed seed; those that are learnt from never change."""
    train = SourceConfig(data=data, split="train").build().load()
    order = np.random.default_rng(0).permutation(len(train))
    rest, held_out = np.split(order, [len(order) - min(HELD_OUT, len(order) // 4)])
    chosen = rest[:number]
    if imbalance > 1:
        assert train.labels is not None
        chosen = long_tail(rest, train.labels[rest], imbalance)
    fit = train.subset(np.sort(chosen))
    if final:
        return Sets(fit, SourceConfig(data=data, split="test").build().load())
    return Sets(fit, train.subset(np.sort(held_out)))


def long_tail(rows: np.ndarray, labels: np.ndarray, imbalance: float) -> np.ndarray:
    """Return rows whose classes shrink evenly in logarithm, the last by ``imbalance``."""
    sizes = np.bincount(labels)
    places = np.linspace(0, 1, len(sizes))
    wanted = (sizes.min() * imbalance**-places).astype(int)
    return np.concatenate([rows[labels == label][:number] for label, number in enumerate(wanted)])


def config_of(method: str, *, seed: int, epochs: int) -> TrainConfig:
    """Return the CPU recipe of a method with the budget of this comparison."""
    method, without_small, _ = method.partition(SAME_EPOCHS)
    config = make_config(RECIPE if method in PRIORS else f"{method}-{RECIPE}")
    groups = [
        replace(group, size=(SMALLER[group.size[0]], SMALLER[group.size[1]]))
        for group in config.views.groups
    ]
    return replace(
        config,
        data=SourceConfig(data="arrays"),
        views=replace(config.views, groups=tuple(groups[:1] if without_small else groups)),
        method=replace(config.method, **PRIORS.get(method, {})),
        seed=seed,
        epochs=epochs,
        device="cpu",
        evaluate_at_end=False,
    )


def untrained_beside(name: str) -> str:
    """Return the name of the untrained network that is shown what a method's network is shown."""
    return f"{UNTRAINED}-{config_of(name, seed=0, epochs=1).views.groups[0].size[0]}px"


def of_pixels(where: Sets) -> dict[str, float]:
    """Return the accuracies of raw pixels, which have one stage."""
    fit, score = (pixel_features(pictures, fit=where.fit) for pictures in where)
    found = linear.run(PROBE.probe, fit, score).metrics["top1"]
    return {"knn": _neighbours(fit, score), "top1": found}


def of_network(config: TrainConfig, network: nn.Module, where: Sets) -> dict[str, float]:
    """Return the accuracy of kNN and of linear probes of the output and of every stage."""
    transform = transform_of(config)
    fit, score = (extract(network, pictures, transform) for pictures in where)
    fit_stages, score_stages = (
        stage_features(network, pictures, transform, max_features=PROBE.max_features)
        for pictures in where
    )
    found = layers.run(PROBE, fit_stages, score_stages, fit, score).metrics
    return {"knn": _neighbours(fit, score), **found}


def with_best_stage(
    found: Sequence[dict[str, Any]], chosen_by: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the results with the accuracy of the stage that is best in others of the same runs."""
    judges = {(row["name"], row["seed"]): row for row in chosen_by}
    rows = []
    for row in found:
        judge = judges.get((row["name"], row["seed"]), {"top1": 0.0})
        best = max(
            (key for key in judge if key.startswith(("stage", "top1"))), key=judge.__getitem__
        )
        rows.append({**row, "best": row[best]})
    return rows


def _neighbours(fit: Features, score: Features) -> float:
    return knn.run(KNNConfig(k=(20,)), fit, score).metrics["top1_k20"]


def jobs(methods: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield name and seed of everything that is measured, baselines first, then seed by seed."""
    runs = [(method, seed) for method in methods for seed in SEEDS.get(method, (0,))]
    runs.sort(key=lambda run: run[1])
    yield "pixels", 0
    yield from dict.fromkeys((untrained_beside(method), seed) for method, seed in runs)
    yield from runs


def pairs(methods: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what shows the gain of small crops; the same time is known after the first two."""
    yield untrained_beside(GAIN[0]), 0
    for method in (method for method in GAIN if method in methods):
        for name in (method, method + SAME_EPOCHS, method + SAME_TIME):
            yield name, 0


def num_epochs(name: str, out: Path, epochs: int) -> int:
    """Return the epochs of a run: more of them where two crops are to take the time of all."""
    if not name.endswith(SAME_TIME):
        return epochs
    method = name.removesuffix(SAME_TIME)
    ratio = undisturbed_speed(out / f"{method}{SAME_EPOCHS}-0") / undisturbed_speed(
        out / f"{method}-0"
    )
    return max(round(epochs * ratio), 1)


def undisturbed_speed(folder: Path) -> float:
    """Return the pictures per second that a tenth of a run's log lines exceed.

    The time that a whole run takes is also that of whatever else the machine does meanwhile.
    """
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return float(np.quantile(speeds, 0.9))


def result(name: str, seed: int, where: Sets, *, epochs: int, out: Path) -> dict[str, Any]:
    """Train if need be, and measure."""
    if name == "pixels":
        return {"name": name, "seed": seed, **of_pixels(where)}
    if name.startswith(UNTRAINED):
        config = config_of("swav", seed=seed, epochs=epochs)
        side = int(name.removeprefix(f"{UNTRAINED}-").removesuffix("px"))
        shown = replace(config.views.groups[0], size=(side, side))
        config = replace(config, views=replace(config.views, groups=(shown,)))
        network = build_objective(config, num_images=len(where.fit)).encoder
        return {"name": name, "seed": seed, **of_network(config, network, where)}
    config = config_of(name, seed=seed, epochs=epochs)
    assert where.fit.pixels is not None, "20,000 pictures of 32 pixels fit into memory"
    unlabelled = from_arrays(where.fit.pixels)
    folder = out / f"{name}-{seed}"
    swav.train(unlabelled, config=config, out=folder, resume=True)
    run = swav.load(folder)
    last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
    spent = {"epochs": epochs, "seconds": json.loads(last)["seconds"]}
    return {"name": name, "seed": seed, **spent, **of_network(config, run.backbone, where)}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return all results as markdown: mean and deviation over seeds, and what training gained."""
    head = ("features", *SHOWN.values(), "epochs", "minutes", "seeds")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    of_run = {(each["name"], each["seed"]): each for each in found}
    for name in dict.fromkeys(name for name, _ in of_run):
        rows = [each for each in found if each["name"] == name]
        beside = [(untrained_beside(name), row["seed"]) for row in rows if "epochs" in row]
        untrained = [of_run[key] for key in beside] if set(beside) <= of_run.keys() else []
        cells = [
            _cell([row[metric] for row in rows], [row[metric] for row in untrained])
            for metric in SHOWN
        ]
        minutes = np.mean([row.get("seconds", 0.0) / 60 for row in rows])
        epochs = rows[0].get("epochs", 0)
        lines.append(f"| {name} | {' | '.join(cells)} | {epochs} | {minutes:.1f} | {len(rows)} |")
    return "\n".join(lines)


def stage_table(found: Sequence[dict[str, Any]]) -> str:
    """Return the linear accuracy of every stage as markdown, the mean over seeds."""
    stages = sorted({key for row in found for key in row if key.startswith("stage")})
    lines = [f"| features | {' | '.join(stages)} |", "|---" * (1 + len(stages)) + "|"]
    for name in dict.fromkeys(row["name"] for row in found if stages[0] in row):
        rows = [row for row in found if row["name"] == name]
        cells = [f"{100 * np.mean([row[stage] for row in rows]):.1f}" for stage in stages]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(shares: Sequence[float], untrained: Sequence[float]) -> str:
    """Return a mean in percent, its deviation, and the gain over networks of the same seeds."""
    spread = f" +- {100 * np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
    gain = f" ({100 * (np.mean(shares) - np.mean(untrained)):+.1f})" if untrained else ""
    return f"{100 * np.mean(shares):.1f}{spread}{gain}"


def read(path: Path) -> list[dict[str, Any]]:
    """Return the results that are there already."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Do what is missing, and print the table."""
    methods = ["swav", *(n.removesuffix(f"-{RECIPE}") for n in RECIPES if n.endswith(f"-{RECIPE}"))]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--imbalance", type=float, default=1, help="long-tailed classes: try 100")
    parser.add_argument("--gain", action="store_true", help="with and without small crops")
    parser.add_argument("--final", action="store_true", help="score the test part, once")
    given = parser.parse_args()
    if given.gain and (given.imbalance > 1 or given.final):
        parser.error("--gain is about all classes and held-out pictures of train")
    given.out.mkdir(parents=True, exist_ok=True)
    tuned = given.out / "tune.jsonl"
    kept = given.out / "final.jsonl" if given.final else tuned
    found = read(kept)
    where = sets(given.data, final=given.final, number=given.pictures, imbalance=given.imbalance)
    wanted = jobs(list(PRIORS) if given.imbalance > 1 else given.methods)
    if given.gain:
        wanted = pairs(given.methods)
    for name, seed in wanted:
        if (name, seed) not in [(each["name"], each["seed"]) for each in found]:
            epochs = num_epochs(name, given.out, given.epochs)
            found.append(result(name, seed, where, epochs=epochs, out=given.out))
            with kept.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
    print(table(with_best_stage(found, read(tuned))), stage_table(found), sep="\n\n")


if __name__ == "__main__":
    main()
