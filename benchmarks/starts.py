r"""What a published start gives: frozen, with a head, or trained further; beside pixels and chance.

A row for each set, kind of features and seed: kNN (k = 10), a linear probe, k-means and the
method's own clusters with as many clusters as there are classes, and the seconds until features and
clusters were there. All is fitted on `train` and scored on `test`, or `val` without one; of one set
a fifth of each class is held out, the same for all seeds.

    python benchmarks/starts.py clothes=clothing.tar cifar10=cifar10:DIR --limit 5000 --seeds 3 \
        --init lite0 --size 96 --tune scratch,last:1,all --epochs 3 --crops 2x96 --out starts.csv
    python benchmarks/starts.py --summary starts.csv

`--tune` adds trainings by `swav.train`, whose run folders lie beside the file: of stages of the
network, of all of it, or from scratch. Their rows are of the trained network, and `picked` is what
the guard would hand out. Rows that are in the file are kept, so it can be continued. The frozen
features of a set are computed once for all seeds. `--size` is what a start is shown its pictures
at, in pixels, instead of the size that its weights were published with.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import csv_rows
import numpy as np
import torch
from start_scores import Made, Scores, by_kmeans, by_own, probes
from torch import nn

import swav
from swav.data.feature_loader import FeatureSet, StepFeatures
from swav.data.loader import loader
from swav.data.sources.open import SourceConfig
from swav.data.sources.pictures import Pictures
from swav.engine import Clock, Objective, fit
from swav.engine.launch import launch, loading_workers, resolved_device
from swav.evals import (
    Features,
    LinearConfig,
    extract,
    pixel_features,
)
from swav.evals.harness.eval_data import fit_and_score
from swav.evals.harness.splits import labels_of, spread, stratified_split
from swav.recipes import make_config
from swav.recipes.start_network import RANDOM
from swav.recipes.train_config import TrainConfig
from swav.run_folder.record import read_record
from swav.training.clusters import clusters_of_method
from swav.training.frozen_features import feature_set
from swav.training.machine import num_threads
from swav.training.networks import build_objective, transform_of
from swav.training.start import StartWeights, open_start

PIXELS, UNTRAINED, FROZEN, HEAD, SCRATCH = "pixels", "untrained", "start", "start + head", "scratch"
WHAT = ("set", "data", "limit", "init", "size", "features", "epochs", "crops", "seed")
"""Columns that tell rows apart."""
COUNTS = ("fit_on", "scored", "classes")
SCORES = ("knn", "linear", "kmeans_nmi", "kmeans_accuracy", "own_nmi", "own_accuracy")
COLUMNS = (*WHAT, *COUNTS, *SCORES, "picked", "seconds")
TITLES = ("kNN", "linear", "k-means NMI", "k-means acc.", "own NMI", "own acc.", "picked", "s")

Row = Mapping[str, str]


class Scored(NamedTuple):
    """A row, made."""

    scores: Scores
    seconds: float
    """Until its features and clusters were there."""
    picked: str = ""
    """By the guard, of a training: "start" or "trained"."""


@dataclass(frozen=True)
class Settings:
    """What is the same for all sets."""

    limit: int
    seeds: int
    init: str
    tune: tuple[str, ...]
    epochs: int | None
    crops: str | None
    device: str
    size: int | None = None


class Job(NamedTuple):
    """One row to be made."""

    name: str
    data: str
    features: str
    seed: int


class Parts(NamedTuple):
    """Disjoint labelled pictures."""

    fit: Pictures
    score: Pictures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", metavar="NAME=DATA")
    parser.add_argument("--out", type=Path, help="where rows are appended")
    parser.add_argument("--limit", type=int, default=0, help="pictures of each part; 0: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--init", default="lite0")
    parser.add_argument("--size", type=int, help="at which the start is shown pictures")
    parser.add_argument("--tune", type=words, default=(), help="trainings too: scratch,last:N,all")
    parser.add_argument("--epochs", type=int, help="of these; by default auto's")
    parser.add_argument("--crops", help="of these, such as 2x96,4x48; by default auto's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--summary", type=Path, help="print a file's rows as a table")
    given = parser.parse_args()
    if given.summary:
        print(summary(read_rows(given.summary)))
        return
    if not given.out or not given.sets or not all("=" in word for word in given.sets):
        parser.error("give NAME=DATA [NAME=DATA ...] --out FILE.csv, or --summary FILE.csv")
    sets = [tuple(word.split("=", 1)) for word in given.sets]
    settings = {field.name: vars(given)[field.name] for field in fields(Settings)}
    measure(sets, Settings(**settings), given.out)


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def measure(sets: Sequence[tuple[str, ...]], settings: Settings, target: Path) -> None:
    """Append the rows that are missing."""
    for name, data in sets:
        known = None
        for job in jobs(name, data, settings):
            key = key_of(job, settings)
            if key in {tuple(row[column] for column in WHAT) for row in read_rows(target)}:
                continue
            known = known or _Known(data, settings, target.with_suffix("") / name)
            made = known.scored(job)
            counts = (len(known.parts.fit), len(known.parts.score), known.classes)
            row = dict(zip(WHAT, key, strict=True)) | dict(zip(COUNTS, counts, strict=True))
            rounded = {column: round(score, 5) for column, score in made.scores.items()}
            rest = {"picked": made.picked, "seconds": round(made.seconds, 1)}
            csv_rows.append(target, row | rounded | rest, COLUMNS)
            print(f"{name}, {job.features}, seed {job.seed}: {made.seconds:.1f} s", flush=True)


def jobs(name: str, data: str, settings: Settings) -> Iterator[Job]:
    """Yield all rows of a set, the cheap ones first."""
    for features in (PIXELS, UNTRAINED, FROZEN, HEAD, *settings.tune):
        for seed in range(settings.seeds):
            yield Job(name, data, features, seed)


def key_of(job: Job, settings: Settings) -> tuple[str, ...]:
    """Return the text by which a row is known; budgets are those of trainings alone."""
    budget = ("", "")
    if job.features in settings.tune:
        budget = (str(settings.epochs or "auto"), settings.crops or "auto")
    start = (settings.init, str(settings.size or ""), job.features)
    return (job.name, job.data, str(settings.limit), *start, *budget, str(job.seed))


@dataclass(frozen=True)
class _Known:
    """A set, and what its rows share, made when the first asks for it."""

    data: str
    settings: Settings
    runs: Path
    """Folder of the trainings."""

    @cached_property
    def parts(self) -> Parts:
        return limited(held_out(self.data), self.settings.limit)

    @cached_property
    def classes(self) -> int:
        return len(np.unique(labels_of(self.parts.score, task="starts")))

    @cached_property
    def config(self) -> TrainConfig:
        """Of a head on the start."""
        return self.config_of("head")

    def config_of(self, tune: str) -> TrainConfig:
        """Return auto's config of a training from the start, or from scratch."""
        settings, is_scratch = self.settings, tune == SCRATCH
        config = make_config(
            "auto",
            self.parts.fit,
            settings.device,
            init=RANDOM if is_scratch else settings.init,
            tune=None if is_scratch else tune,
        )
        if settings.size and config.input:
            size = (config.input.input_size[0], settings.size, settings.size)
            config = replace(config, input=replace(config.input, input_size=size))
        return config

    @cached_property
    def start(self) -> StartWeights:
        start = open_start(self.config)
        assert start is not None, "--init random has no start"
        return start

    @cached_property
    def pixels(self) -> Made:
        return timed(lambda pictures: pixel_features(pictures, fit=self.parts.fit), self.parts)

    @cached_property
    def frozen(self) -> Made:
        weights = self.start.tensors
        network = build_objective(
            self.config, num_images=len(self.parts.fit), weights=weights
        ).encoder
        return self.of_network(network, self.config)

    @cached_property
    def neighbours(self) -> FeatureSet:
        return feature_set(self.frozen.fit.values)

    @cached_property
    def pixel_probes(self) -> Scores:
        return probes(self.pixels)

    @cached_property
    def start_probes(self) -> Scores:
        return probes(self.frozen)

    def of_network(self, network: nn.Module, config: TrainConfig) -> Made:
        device = torch.device(resolved_device(self.settings.device))
        workers = loading_workers(device)
        transform = transform_of(config)
        network.to(device)
        return timed(
            lambda pictures: extract(network, pictures, transform, device=device, workers=workers),
            self.parts,
        )

    def scored(self, job: Job) -> Scored:
        """Return a row."""
        if job.features == PIXELS:
            made = self.pixels
            return Scored(self.pixel_probes | by_kmeans(made, job.seed), made.seconds)
        config = replace(self.config, seed=job.seed)
        if job.features == UNTRAINED:
            made = self.of_network(
                build_objective(config, num_images=len(self.parts.fit)).encoder, config
            )
            return Scored(probes(made) | by_kmeans(made, job.seed), made.seconds)
        made = self.frozen
        scores = self.start_probes | by_kmeans(made, job.seed)
        if job.features == FROZEN:
            return Scored(scores, made.seconds)
        if job.features == HEAD:
            started = time.monotonic()
            own = clusters_of_method(trained_head(config, self.start, self.neighbours))
            seconds = made.seconds + time.monotonic() - started
            return Scored(scores | by_own(made, own, job.seed), seconds)
        return self.tuned(job)

    def tuned(self, job: Job) -> Scored:
        """Return the row of a whole training."""
        settings, config = self.settings, self.config_of(job.features)
        config = replace(
            config,
            seed=job.seed,
            epochs=settings.epochs or config.epochs,
            evaluate_at_end=False,
            keep="trained",
        )
        if settings.crops:
            config = replace(config, views=config.views.with_crops(settings.crops))
        folder = self.runs / "-".join(key_of(job, settings)[2:]).replace("/", "_").replace(":", "")
        started = time.monotonic()
        swav.train(self.parts.fit, config=config, out=folder, resume=folder.exists())
        seconds = time.monotonic() - started
        run = swav.load(folder, device=settings.device)
        made = self.of_network(run.backbone, run.config)
        scores = probes(made) | by_kmeans(made, job.seed)
        scores |= by_own(made, clusters_of_method(run.objective), job.seed)
        picked = read_record(folder).get("guard", {}).get("winner", "")
        return Scored(scores, seconds + made.seconds, picked)


def held_out(data: str) -> Parts:
    """Return the pictures to fit on and those to score."""
    parts = fit_and_score(SourceConfig(data=data))
    if parts.test is not None:
        return Parts(parts.train, parts.test)
    labels = labels_of(parts.train, task="starts")
    split = stratified_split(labels, held_out=LinearConfig().held_out, seed=0)
    return Parts(parts.train.subset(split.train), parts.train.subset(split.held_out))


def limited(parts: Parts, limit: int) -> Parts:
    """Return at most so many pictures of each part, evenly through it, in memory if they fit."""
    if limit:
        parts = Parts(*(part.subset(spread(len(part), limit)) for part in parts))
    return Parts(*(part.load() for part in parts))


def timed(features: Callable[[Pictures], Features], parts: Parts) -> Made:
    started = time.monotonic()
    fit_on, score = (features(part) for part in parts)
    return Made(fit_on, score, time.monotonic() - started)


def trained_head(config: TrainConfig, start: StartWeights, features: FeatureSet) -> Objective:
    """Return a method whose head and prototypes are trained on features, as --tune head does."""
    number = len(features.values)
    objective = build_objective(config, num_images=number, weights=start.tensors, to_train=True)
    optim = config.optim
    batches = StepFeatures(
        features, global_batch=optim.batch_size, accumulate=optim.accumulate, seed=config.seed
    )
    an_epoch = batches.steps_per_epoch
    total, warmup = an_epoch * config.epochs, round(optim.warmup_epochs * an_epoch)
    clock = Clock(0, 0, steps_per_epoch=an_epoch, total_steps=total, images=0, warmup_steps=warmup)
    fabric = launch(device=config.device, precision=config.precision, threads=num_threads(config))
    objective.to(fabric.device).train()

    loaded = partial(loader, batches, start_step=0, workers=0, device=fabric.device)
    objective.prepare(loaded(total_steps=an_epoch))
    steps = fit(
        objective,
        loaded(total_steps=total),
        optim.build(objective, objective.lr_multipliers),
        clock,
        learning_rate=optim.learning_rate_at,
        fabric=fabric,
        accumulate=optim.accumulate,
        clip_norm=optim.clip_norm,
        seed=config.seed,
    )
    for _ in steps:
        pass
    return objective.eval()


def read_rows(path: Path) -> list[Row]:
    """Return the whole rows of a file."""
    return csv_rows.read_rows(path, ("seconds",))


def summary(rows: Sequence[Row]) -> str:
    """Return a markdown table: mean and standard deviation over seeds."""
    heads = ("set", "pictures", "features", *TITLES, "seeds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key in dict.fromkeys(tuple(row[column] for column in WHAT[:-1]) for row in rows):
        same = [row for row in rows if tuple(row[column] for column in WHAT[:-1]) == key]
        name, _, _, init, size, features, epochs, crops = key
        budget = f", {epochs} epochs, {crops}" if epochs else ""
        shown = f" at {size}" if size else ""
        started = f" ({init}{shown}{budget})" if features not in (PIXELS, UNTRAINED) else ""
        cells = [csv_rows.mean_and_spread(same, column, digits=3) for column in SCORES]
        cells.append(" ".join(row["picked"] for row in same) or "-")
        cells.append(csv_rows.mean_and_spread(same, "seconds", digits=0))
        cells = [name, same[0]["fit_on"], f"{features}{started}", *cells]
        lines.append(f"| {' | '.join(cells)} | {len(same)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
