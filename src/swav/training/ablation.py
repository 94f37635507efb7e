"""A grid of trainings over settings and seeds: what is missing is made, a line for each run."""

import csv
import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swav.config import UsageError
from swav.data.sources.open import Data, SourceConfig, named_or_opened
from swav.data.sources.pictures import DataFacts, Pictures
from swav.engine.divergence import NotFiniteError
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.report.ablation import (
    COLUMNS,
    MEASURES,
    Row,
    Summary,
    summarised,
    write_figure,
    write_table,
)
from swav.run_folder import layout
from swav.run_folder.atomic import append_whole
from swav.run_folder.readers import read_curves
from swav.training.checks import check_plan
from swav.training.continuation import check_same_settings
from swav.training.trained_run import TrainedRun

logger = logging.getLogger(__name__)

ROWS, SPEEDS, TABLE, FIGURE = "rows.csv", "speeds.csv", "table.md", "figure.png"
RUNS, PROBES = "runs", "probes"
"""Files and folders of an ablation."""
PROBE_STEPS = 30
"""That the speed of a variant is taken from, without the first half, which loads compiled code."""
SEED, SPEED = "seed", "pictures_per_second"
TASK_OF = {"own_nmi": "clusters", "stability": "clusters", "rankme": "clusters"}
METRIC_OF = {"own_nmi": "nmi"}
"""Where a measure is called otherwise than its task, or than its metric."""
UNLABELLED = ("part_retrieval", "stability", "rankme")
"""Measures of runs whose pictures have no labels."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One point of a grid: what it is called, and the whole training that this makes."""

    settings: Mapping[str, str]
    config: TrainConfig
    data: Data
    train: Callable[..., TrainedRun]
    """``swav.train``, which gets data, config, out and resume."""

    @property
    def name(self) -> str:
        """A name for files."""
        words = (f"{key}={value}" for key, value in self.settings.items())
        return ",".join(words).replace("/", "_").replace(" ", "+")

    def pictures(self) -> Pictures:
        """Return what is trained on."""
        data = named_or_opened(self.data, channels=self.config.data.channels)
        return data if isinstance(data, Pictures) else replace(self.config.data, data=data).build()


def ablate(
    variants: Sequence[Variant], *, seeds: Sequence[int], out: Path, seconds: float | None = None
) -> Summary:
    """Train every variant with every seed, as far as that is not done, and write what came out.

    Seeds are the outer loop, so that an early stop leaves all variants with as many runs. Each
    finished run is a line of ``rows.csv``; ``table.md`` and ``figure.png`` follow it.

    Args:
        variants: that are compared, all with the same settings varied.
        seeds: of each.
        out: folder, which may hold a part of the runs.
        seconds: of training for each run, which is how long its schedule then is; by default as
            many epochs as its config says.

    Raises:
        ValueError: before the first run, for a variant that cannot be trained; after the last, if
            some failed.
    """
    _check(variants, seeds)
    keys = list(variants[0].settings)
    columns = [*keys, SEED, *COLUMNS]
    read_rows(out / ROWS, columns)
    if seconds is not None:
        variants = [_of_seconds(variant, seconds, out) for variant in variants]
    failed = []
    for seed in seeds:
        for variant in variants:
            try:
                _make(variant, seed, out, columns)
            except (ValueError, NotFiniteError) as error:
                logger.warning("%s, seed %d: %s", variant.name, seed, error)
                failed.append(f"{variant.name}, seed {seed} ({error})")
                continue
            _write(summarised(read_rows(out / ROWS, columns), keys), out)
    if failed:
        raise ValueError(f"{len(failed)} runs failed, and are in no table: {'; '.join(failed)}")
    return summarised(read_rows(out / ROWS, columns), keys)


def _make(variant: Variant, seed: int, out: Path, columns: Sequence[str]) -> None:
    """Train one variant with one seed and write its row, unless there is one."""
    config = replace(variant.config, seed=seed, evaluate_at_end=True)
    folder = out / RUNS / f"{variant.name},{SEED}={seed}"
    if layout.is_run(folder):
        stored = read_train_config(folder / layout.CONFIG)
        check_same_settings(stored, replace(config, data=stored.data))
    known = {**variant.settings, SEED: str(seed)}
    if any(known.items() <= row.items() for row in read_rows(out / ROWS, columns)):
        return
    logger.info("%s", folder)
    run = variant.train(variant.data, out=folder, config=config, resume=True)
    append_row(out / ROWS, known | measured(run), columns)


def measured(run: TrainedRun) -> dict[str, str]:
    """Return the final measures of a run, and its costs; without labels those that need none."""
    scores, curves = run.scores, read_curves(run.folder)
    found = {}
    for name in MEASURES:
        task = scores.get(TASK_OF.get(name, name))
        if task is None or (name in UNLABELLED) == ("knn" in scores):
            continue
        metric = METRIC_OF.get(name, name if name in TASK_OF else task.lead or "")
        if metric in task.metrics:
            found[name] = f"{task.metrics[metric]:.6g}"
    seconds, images = float(curves["seconds"][-1]), float(curves["images"][-1])
    return found | {
        "epochs": str(run.config.epochs),
        "seconds": f"{seconds:.1f}",
        SPEED: f"{images / seconds:.1f}",
    }


def _check(variants: Sequence[Variant], seeds: Sequence[int]) -> None:
    """Refuse before the first run what cannot be trained."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("an ablation trains its runs in one process: start it without torchrun")
    if not variants or not seeds:
        raise UsageError("nothing to train: give at least one value and one seed")
    words = [*(variant.name for variant in variants), *map(str, seeds)]
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)}: give each value and each seed once")
    facts: dict[SourceConfig, DataFacts] = {}
    for variant in variants:
        source = variant.config.data
        if source not in facts:
            facts[source] = variant.pictures().facts()
        try:
            check_plan(variant.config, facts[source])
        except ValueError as error:
            raise UsageError(f"{variant.name}: {error}") from error
        warmup = variant.config.optim.warmup_epochs
        if warmup >= variant.config.epochs:
            logger.warning(
                "%s: the run ends within its warm-up of %s epochs, and never has its full learning "
                "rate: give --optim.warmup-epochs too",
                variant.name,
                f"{warmup:g}",
            )


def _of_seconds(variant: Variant, seconds: float, out: Path) -> Variant:
    """Return the variant with as many epochs as take so long at the speed of its first steps.

    The speed is kept, so that a later call has the same number of epochs.
    """
    columns, pictures = [*variant.settings, SPEED], variant.pictures()
    kept = read_rows(out / SPEEDS, columns)
    speed = next((float(row[SPEED]) for row in kept if variant.settings.items() <= row.items()), 0)
    if not speed:
        speed = _speed(variant, pictures, out / PROBES / variant.name)
        append_row(out / SPEEDS, {**variant.settings, SPEED: f"{speed:.1f}"}, columns)
    batch = variant.config.optim.batch_size
    an_epoch = len(pictures) // batch * batch / speed
    if an_epoch > 1.5 * seconds:
        raise UsageError(
            f"{variant.name}: one epoch takes {an_epoch:.0f} s, and {seconds:.0f} were asked for"
        )
    epochs = max(1, round(seconds / an_epoch))
    logger.info("%s: %.0f pictures/s, so %d epochs", variant.name, speed, epochs)
    optim = variant.config.optim
    # the schedule keeps its shape: a warm-up of ten epochs may be longer than the whole run
    warmup = optim.warmup_epochs * epochs / variant.config.epochs
    optim = replace(optim, warmup_epochs=min(warmup, optim.warmup_epochs))
    return replace(variant, config=replace(variant.config, epochs=epochs, optim=optim))


def _speed(variant: Variant, pictures: Pictures, folder: Path) -> float:
    """Return the pictures per second of a training on a few batches, loading included."""
    batch = variant.config.optim.batch_size
    steps = min(PROBE_STEPS, len(pictures) // batch)
    config = replace(
        variant.config, epochs=-(-PROBE_STEPS // steps), log_every=1, evaluate_at_end=False
    )
    some = pictures.subset(np.arange(steps * batch)).load()
    run = variant.train(some, out=folder, config=config, resume=True)
    speeds = read_curves(run.folder)["images_per_second"]
    return float(np.median(speeds[len(speeds) // 2 :]))


def _write(summary: Summary, out: Path) -> None:
    write_table(summary, out / TABLE)
    write_figure(summary, out / FIGURE)


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a file, none if it is not there yet.

    Raises:
        ValueError: if it has other columns.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(columns):
            raise UsageError(
                f"{path} has the columns {', '.join(reader.fieldnames or ())}, which are those of "
                "another grid: give another --out"
            )
        return list(reader)


def append_row(path: Path, row: Row, columns: Sequence[str]) -> None:
    """Add a row to a file as a whole, after the names of the columns if it is the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    writer.writerow(row)
    append_whole(path, lines.getvalue().encode())
