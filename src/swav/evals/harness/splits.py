"""Which labelled pictures a probe learns from and which it is scored on."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64

from swav.data.sources.pictures import Pictures
from swav.evals.harness.extract import Features


class Split(NamedTuple):
    """Rows of a set, in rising order; no row is in both parts."""

    train: Int64[np.ndarray, " train"]
    held_out: Int64[np.ndarray, " held"]


def check_held_out(share: float) -> None:
    """Raise a ValueError unless something is left on both sides of a split."""
    if not 0 < share < 1:
        raise ValueError(f"held_out {share} must be between 0 and 1")


def stratified_split(labels: Int64[np.ndarray, " images"], *, held_out: float, seed: int) -> Split:
    """Return a random split in which ``held_out`` of every class is held out.

    Shares are rounded to whole pictures; every class keeps at least one to learn from.

    Raises:
        ValueError: if no class is large enough to hold out a picture.
    """
    assert 0 < held_out < 1
    generator = np.random.default_rng(seed)
    held: list[Int64[np.ndarray, " rows"]] = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        # one at least stays to learn from: a class that was never seen cannot be right
        held.append(rows[: min(round(held_out * len(rows)), len(rows) - 1)])
    chosen = np.sort(np.concatenate(held))
    if not len(chosen):
        raise ValueError(
            f"{len(labels)} labelled pictures in {len(held)} classes are too few to hold out "
            f"{held_out:.0%} of each class: label at least {round(1 / held_out)} of one class"
        )
    return Split(train=np.setdiff1d(np.arange(len(labels)), chosen), held_out=chosen)


def stratified_folds(
    labels: Int64[np.ndarray, " images"], *, folds: int, seed: int
) -> Int64[np.ndarray, " images"]:
    """Return the fold of every picture; each class is dealt out evenly.

    The only picture of a class is in no fold (-1), so that every class can always be learnt.
    """
    generator = np.random.default_rng(seed)
    fold_of = np.full(len(labels), -1, dtype=np.int64)
    dealt = 0
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            # dealt on from class to class, or the first fold would get every remainder
            fold_of[rows] = (dealt + np.arange(len(rows))) % folds
            dealt += len(rows)
    return fold_of


def take(features: Features, rows: Int64[np.ndarray, " rows"]) -> Features:
    """Return some rows of a set of features."""
    index = torch.from_numpy(rows)
    return features._replace(
        values=features.values[index],
        labels=None if features.labels is None else features.labels[index],
        names=[features.names[row] for row in rows.tolist()],
    )


def spread(number: int, most: int) -> Int64[np.ndarray, " _"]:
    """Return at most ``most`` positions, evenly through ``number``."""
    return np.linspace(0, number - 1, min(number, most)).round().astype(np.int64)


def labels_of(labelled: Features | Pictures, *, task: str) -> Int64[np.ndarray, " images"]:
    """Return the labels as an array.

    Raises:
        ValueError: if there are none.
    """
    if labelled.labels is None:
        raise ValueError(
            f"{task} needs labels: one folder a class, a CSV file with a label column, or a "
            "labelled set such as cifar10:DIR"
        )
    return np.asarray(labelled.labels)


def check_comparable(train: Features, test: Features, *, task: str) -> None:
    """Raise a ValueError unless both sets have the same kind of features and the same classes."""
    if train.values.shape[1] != test.values.shape[1]:
        raise ValueError(
            f"{task} fits on {train.values.shape[1]} features and scores {test.values.shape[1]}: "
            "extract both with one backbone"
        )
    check_same_classes(train, test, task=task)


def check_same_classes(train: Features | Pictures, test: Features | Pictures, *, task: str) -> None:
    """Raise a ValueError unless both sets name the same classes in the same order."""
    if train.classes != test.classes:
        raise ValueError(
            f"{task} fits on the classes {_few(train.classes)} and scores {_few(test.classes)}: "
            "the two sets need the same class names"
        )


def _few(classes: tuple[str, ...]) -> str:
    names = ", ".join(classes[:5]) or "without names"
    return f"{names}, ... ({len(classes)})" if len(classes) > 5 else names
