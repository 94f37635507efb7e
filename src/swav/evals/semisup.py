"""Fine-tuning on a few of the labels (Chen et al., 2020; SwAV, sec. 4.1).

The same training from an untrained network is the number to beat; with all labels it is the
supervised ceiling. Which pictures are labelled depends on the seed and the names alone, smaller
lists are part of larger ones, and lists can be kept as files.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64
from torch import nn

from swav.config import check_ranges
from swav.data.eval_transform import EvalTransform
from swav.data.sources.pictures import Pictures
from swav.evals.harness.accuracy import top1_and_top5
from swav.evals.harness.finetune import (
    FineTuneConfig,
    finetune,
    labelled_parts,
    network_of,
    num_classes,
    num_right,
)
from swav.evals.harness.input import AS_THE_MODEL, PUBLISHED, InputConfig
from swav.evals.harness.splits import check_held_out, labels_of
from swav.evals.harness.subject import Subject
from swav.ops.metrics import wilson_interval
from swav.run_folder.atomic import write_atomically
from swav.run_folder.result import Metric, Result


@dataclass(frozen=True, kw_only=True)
class SemisupConfig:
    """Accuracy after fine-tuning on a share of the labels, beside training from scratch."""

    name: ClassVar[str] = "semisup"
    title: ClassVar[str] = "Few labels"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = (
        "start",
        "random",
    )
    fractions: tuple[float, ...] = ()
    """Shares of every class, at least one picture each; 1.0 is the supervised ceiling. Without
    any, and without ``per_class``, 1 % and 10 %."""
    per_class: tuple[int, ...] = ()
    """Numbers of pictures of every class."""
    lists: str = ""
    """Folder of the lists of labelled pictures, such as ``10pct-seed0.txt`` with a name a line:
    a list that is there is read, one that is not is written."""
    training: FineTuneConfig = field(
        default_factory=lambda: FineTuneConfig(
            trunk_rate=0.05, head_rate=0.1, batch_size=64, min_steps=100
        )
    )
    held_out: float = 0.2
    """Share of each class that is scored when there is no score set."""
    input: InputConfig = AS_THE_MODEL
    seed: int = 0

    def __post_init__(self) -> None:
        if any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"fractions {self.fractions} must be shares above 0, at most 1")
        if any(number < 1 for number in self.per_class):
            raise ValueError(f"per_class {self.per_class} must be numbers of 1 or more")
        check_held_out(self.held_out)
        check_ranges(self, seed="[0, 9e18]")

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of the labels that are tried."""
        return self.fractions if self.fractions or self.per_class else (0.01, 0.1)

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on a copy of a subject's network."""
        network = network_of(subject, task="semisup")
        sets = subject.data.train, subject.data.test
        return run(self, *network, *sets, workers=subject.workers)


def one_percent() -> SemisupConfig:
    """Return SwAV's protocol for 1 % of the labels of ImageNet (batch 256, 20 epochs)."""
    # the published script's rates of trunk and head for this share
    training = FineTuneConfig(trunk_rate=0.02, head_rate=5.0)
    return SemisupConfig(fractions=(0.01,), training=training, input=PUBLISHED)


def ten_percent() -> SemisupConfig:
    """Return SwAV's protocol for 10 % of the labels of ImageNet (batch 256, 20 epochs)."""
    # the published script's rates of trunk and head for this share
    training = FineTuneConfig(trunk_rate=0.01, head_rate=0.2)
    return SemisupConfig(fractions=(0.1,), training=training, input=PUBLISHED)


def supervised() -> SemisupConfig:
    """Return training with all labels: the ceiling of a network on its data."""
    training = FineTuneConfig(trunk_rate=0.05, head_rate=0.05, weight_decay=1e-4)
    return SemisupConfig(fractions=(1.0,), training=training, input=PUBLISHED)


def run(
    config: SemisupConfig,
    backbone: nn.Module,
    transform: EvalTransform,
    train: Pictures,
    test: Pictures | None = None,
    *,
    workers: int = 0,
) -> Result:
    """Return top-1 (and top-5) for every number of labels, such as ``top1_10pct``.

    Raises:
        ValueError: if labels are missing, classes differ, or a list names other pictures.
    """
    train, test, split = labelled_parts(
        train, test, task="semisup", held_out=config.held_out, seed=config.seed
    )
    metrics: dict[str, float] = {}
    about: dict[str, Metric] = {}
    intervals: dict[str, tuple[float, float]] = {}
    counts = {"score": len(test), "classes": len(np.unique(labels_of(train, task="semisup")))}
    digests = {}
    for amount, words, rows in _chosen(config, train):
        few = train.subset(rows)
        trained = finetune(
            config.training,
            backbone,
            few,
            transform,
            num_classes=num_classes(train, test),
            seed=config.seed,
            workers=workers,
        )
        right, num_scored = num_right(trained, test, transform, workers=workers)
        for metric, hits in right.items():
            metrics[f"{metric}_{amount}"] = hits / num_scored
            about[f"{metric}_{amount}"] = top1_and_top5(f" with {words}")[metric]
            intervals[f"{metric}_{amount}"] = wilson_interval(hits, num_scored)
        counts[f"fit_{amount}"] = len(rows)
        digests[amount] = _digest(few.names)
    return Result(
        task=config.name,
        title=config.title,
        protocol={"lists": digests, "split": split, "seed": config.seed}
        | config.training.protocol(),
        metrics=metrics,
        about=about,
        intervals=intervals,
        seeds=(config.seed,),
        counts=counts,
    )


def choose(
    labels: Int64[np.ndarray, " images"], *, fraction: float | None, number: int | None, seed: int
) -> Int64[np.ndarray, " chosen"]:
    """Return a random share of every class, or a number of each; at least one of each.

    A smaller choice of the same seed is part of a larger one.
    """
    assert (fraction is None) != (number is None)
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        # one order a class: a smaller list is the beginning of a larger one
        rows = generator.permutation(np.flatnonzero(labels == label))
        size = round(fraction * len(rows)) if fraction is not None else number
        chosen.append(rows[: max(size or 0, 1)])
    return np.sort(np.concatenate(chosen))


def write_list(path: Path, names: Sequence[str]) -> None:
    """Write a list of pictures, a name a line; whole or not at all.

    Raises:
        ValueError: if a name holds a line break.
    """
    broken = [name for name in names if "\n" in name]
    if broken:
        raise ValueError(f"{broken[0]!r} cannot stand in a list: rename it without a line break")
    write_atomically(path, "".join(f"{name}\n" for name in names))


def read_list(path: Path, pictures: Pictures) -> Int64[np.ndarray, " chosen"]:
    """Return the positions of the listed pictures; a name without folder suffices if it is unique.

    Raises:
        ValueError: if a listed picture is not there, or could be several.
    """
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(pictures.names):
        for known in {name, name.rpartition("/")[2]}:
            rows_of.setdefault(known, []).append(row)
    rows = []
    for name in path.read_bytes().decode("utf-8", "surrogatepass").split("\n"):
        if not name:
            continue
        meant = rows_of.get(name, [])
        if len(meant) != 1:
            what = f"is {len(meant)} pictures" if meant else "is no picture"
            raise ValueError(
                f"{path}: {name!r} {what} of the {len(pictures)} to learn from in "
                f"{pictures.data}: list them by their names there, or remove the file"
            )
        rows += meant
    if not rows:
        raise ValueError(f"{path} lists no picture: remove the file to have it written")
    return np.unique(np.array(rows, dtype=np.int64))


def _chosen(
    config: SemisupConfig, train: Pictures
) -> Iterator[tuple[str, str, Int64[np.ndarray, " chosen"]]]:
    """Yield the name of every list, its size in words, and its rows."""
    amounts: list[tuple[str, str, float | None, int | None]] = [
        *(
            (f"{100 * share:g}pct", f"{100 * share:g} % of the labels", share, None)
            for share in config.shares
        ),
        *(
            (f"{number}each", f"{number} labels a class", None, number)
            for number in config.per_class
        ),
    ]
    for amount, words, fraction, number in amounts:
        path = Path(config.lists).expanduser() / f"{amount}-seed{config.seed}.txt"
        if config.lists and path.exists():
            yield amount, words, read_list(path, train)
            continue
        rows = choose(
            labels_of(train, task="semisup"), fraction=fraction, number=number, seed=config.seed
        )
        if config.lists:
            write_list(path, [train.names[row] for row in rows.tolist()])
        yield amount, words, rows


def _digest(names: Sequence[str]) -> str:
    """Return what tells one list of pictures from another."""
    # sorted: a list that a person wrote in another order is the same list
    lines = "".join(f"{name}\n" for name in sorted(names)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(lines).hexdigest()[:16]
