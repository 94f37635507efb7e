"""What an evaluation learns from and what it scores: one set, two parts of it, or two sets."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from swav.data.sources.annotated import Annotated, is_annotated, open_annotated
from swav.data.sources.open import SourceConfig, splits
from swav.data.sources.pictures import Pictures


class EvalData(NamedTuple):
    """Pictures to fit on and to score; ``test`` is None where one set plays both parts."""

    train: Pictures
    test: Pictures | None
    fit_on: str
    score_on: str
    boxes: tuple[Annotated, Annotated] | None = None
    """The same two sets with the objects in each picture, if they are known."""

    def load(self) -> "EvalData":
        """Return the same with the pictures decoded in memory, if they fit there."""
        test = None if self.test is None else self.test.load()
        loaded = self._replace(train=self.train.load(), test=test)
        if self.boxes is None or loaded.test is None:
            return loaded
        train_boxes, test_boxes = self.boxes
        return loaded._replace(boxes=(train_boxes.of(loaded.train), test_boxes.of(loaded.test)))

    def at_most(self, most: int) -> "EvalData":
        """Return the same with at most so many pictures of each set, evenly through it.

        The names of the sets, which every protocol has, say so.
        """
        if max(len(self.train), len(self.scored)) <= most:
            return self
        train, fit_on = _some(self.train, self.fit_on, most)
        if self.test is None:
            return EvalData(train, None, fit_on, fit_on)
        test, score_on = _some(self.test, self.score_on, most)
        return EvalData(train, test, fit_on, score_on)

    @property
    def scored(self) -> Pictures:
        """The pictures that are scored."""
        return self.train if self.test is None else self.test


def _some(pictures: Pictures, name: str, most: int) -> tuple[Pictures, str]:
    """Return at most so many pictures, evenly through the set, and what these are called."""
    number = len(pictures)
    if number <= most:
        return pictures, name
    rows = np.linspace(0, number - 1, most).round().astype(np.int64)
    return pictures.subset(rows), f"{name}, {most:,} of {number:,} pictures, evenly"


def fit_and_score(
    source: SourceConfig, *, split: str | None = None, trained_on: Pictures | None = None
) -> EvalData:
    """Return the pictures to fit on and those to score.

    Data in parts are fitted on ``train`` and scored on ``test``, or ``val`` without one.

    Args:
        source: the data.
        split: the part to score instead.
        trained_on: the pictures of ``source`` that a training has open already.

    Raises:
        ValueError: if there is no such part.
    """
    if trained_on is None and split is None and is_annotated(source.data):
        return parts_with_boxes(source)
    parts = splits(source.data) if trained_on is None else trained_on.splits
    held_out = [part for part in parts if part != "train"]
    if split is None and ("train" not in parts or not held_out):
        return one_set(source.build() if trained_on is None else trained_on)
    # test if there is one: val is what people choose settings on
    chosen = split or ("test" if "test" in held_out else held_out[0])
    if chosen not in held_out or "train" not in parts:
        parts_of = f"has the parts {', '.join(parts)}" if parts else "has no parts"
        raise ValueError(
            f"--split {chosen}: {source.data} {parts_of}; this needs train, and another to score "
            "(folders train, val, test), or --fit-on and --score-on"
        )
    is_train = source.split in (None, "train")
    if trained_on is None or trained_on.labels is None or not is_train:
        trained_on = replace(source, split="train").build()
    test = replace(source, split=chosen).build()
    return EvalData(trained_on, test, f"{source.data} (train)", f"{source.data} ({chosen})")


def fit_on_and_score_on(source: SourceConfig, fit_on: str, score_on: str) -> EvalData:
    """Return two sets; of data in parts, ``train`` to fit on and a held-out part to score.

    Raises:
        ValueError: if both are the same pictures.
    """
    opened, names = [], []
    for data, first in ((fit_on, ("train",)), (score_on, ("test", "val"))):
        parts = splits(data)
        split = next((part for part in first if part in parts), None)
        opened.append(replace(source, data=data, split=split).build())
        names.append(data if split is None else f"{data} ({split})")
    # by content, since two paths may lead to one folder
    if opened[0].digest() == opened[1].digest():
        raise ValueError(
            f"--fit-on and --score-on are the same pictures ({names[1]}): a picture would find "
            "itself. Give two sets, or one DATA without these options (it is split, or leaves one "
            "out)"
        )
    return EvalData(opened[0], opened[1], names[0], names[1])


def parts_with_boxes(source: SourceConfig) -> EvalData:
    """Return the parts that a set of VOC or COCO itself says are to fit on and to score."""
    train, test = open_annotated(source.data, channels=source.channels)
    names = f"{source.data} (fit)", f"{source.data} (score)"
    return EvalData(train.pictures, test.pictures, *names, boxes=(train, test))


def one_set(pictures: Pictures) -> EvalData:
    """Return pictures that play both parts: leave one out, or a share of every class."""
    return EvalData(pictures, None, pictures.data, pictures.data)
