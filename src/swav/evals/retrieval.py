"""Finding the other pictures of a class or a group, and pictures that stand in a set twice.

Every picture of a sample asks for the others by cosine. With labels or groups: the mean average
precision over the whole ranking, and how often one of the group is among the first k. Always:
near duplicates, pairs of pictures whose centred features point the same way.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from swav.config import check_ranges
from swav.evals.harness.extract import Features
from swav.evals.harness.input import AS_THE_MODEL, InputConfig
from swav.evals.harness.splits import check_comparable
from swav.evals.harness.subject import Subject
from swav.ops.average_precision import precision_of_rankings
from swav.ops.metrics import mean_interval, wilson_interval
from swav.ops.neighbours import chunk_size
from swav.run_folder.result import Metric, Result

MOST_LISTED = 100


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """Mean average precision and recall of pictures of the same class or group; duplicates."""

    name: ClassVar[str] = "retrieval"
    title: ClassVar[str] = "Retrieval"
    needs_labels: ClassVar[bool] = False
    baselines: ClassVar[tuple[str, ...]] = ("start", "random", "pixels", "patch-kmeans")
    input: ClassVar[InputConfig] = AS_THE_MODEL
    k: tuple[int, ...] = (1, 5, 10)
    """Of the recall: how many answers are looked at."""
    groups: str | None = None
    """CSV file with the columns path and group, to be found together in place of the labels."""
    max_queries: int = 2000
    """Pictures that ask, drawn by seed; all others can be the answer."""
    duplicate_cosine: float = 0.98
    """Cosine of centred features from which two pictures are near duplicates."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k {self.k} must be numbers of answers, each 1 or more")
        if self.max_queries < 1:
            raise ValueError(f"max_queries {self.max_queries} must be 1 or more")
        if not 0 < self.duplicate_cosine <= 1:
            raise ValueError(f"duplicate_cosine {self.duplicate_cosine} must lie in (0, 1]")
        check_ranges(self, seed="[0, 9e18]")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on a subject's features."""
        return run(self, subject.train_features, subject.test_features)


def run(config: RetrievalConfig, train: Features, test: Features | None = None) -> Result:
    """Return ``map``, ``recall_at_K`` (with labels or groups) and ``near_duplicates``.

    Pictures of ``test`` ask for those of ``train``; without ``test`` each asks for the others.
    A picture that has no other of its group asks for nothing. ``near_duplicates`` is the share
    of all pictures that have one; ``details`` lists the pairs.

    Raises:
        ValueError: if classes differ, a picture has no group, or no query has an answer.
    """
    if test is not None:
        check_comparable(train, test, task="retrieval")
    doubled = near_duplicates(train, test, least=config.duplicate_cosine)
    num_pictures = len(doubled.has_one)
    metrics: dict[str, float] = {}
    about: dict[str, Metric] = {}
    intervals: dict[str, tuple[float, float]] = {}
    counts = {"pictures": num_pictures, "near_duplicate_pairs": doubled.num_pairs}
    groups = _groups(config, train, test)
    if groups is not None:
        asked = _ask(config, train, test, *groups)
        num_queries = len(asked.precision)
        metrics["map"] = float(asked.precision.mean())
        about["map"] = Metric(title="mean average precision")
        intervals["map"] = mean_interval(asked.precision)
        for k in config.k:
            num_right = int((asked.first < k).sum())
            metrics[f"recall_at_{k}"] = num_right / num_queries
            about[f"recall_at_{k}"] = Metric(title=f"recall at {k}", is_share=True)
            intervals[f"recall_at_{k}"] = wilson_interval(num_right, num_queries)
        counts |= {"queries": num_queries, "groups": len(np.unique(groups[0]))}
    metrics["near_duplicates"] = int(doubled.has_one.sum()) / num_pictures
    about["near_duplicates"] = Metric(
        title="pictures with a near duplicate", is_share=True, higher_is_better=None
    )
    names = [*train.names, *(() if test is None else test.names)]
    return Result(
        task=config.name,
        title=config.title,
        protocol=_protocol(config, grouped=groups is not None, leave_one_out=test is None),
        metrics=metrics,
        about=about,
        intervals=intervals,
        seeds=(config.seed,),
        counts=counts,
        details={
            "near_duplicates": [
                [names[one], names[other], round(cosine, 4)]
                for (one, other), cosine in zip(
                    doubled.pairs.tolist(), doubled.cosines.tolist(), strict=True
                )
            ]
        },
    )


@dataclass(frozen=True)
class _Answers:
    precision: Float[np.ndarray, " batch"]
    """Average precision of each query."""
    first: Int64[np.ndarray, " batch"]
    """Place of the first right answer, from 0."""


def _ask(
    config: RetrievalConfig,
    train: Features,
    test: Features | None,
    train_groups: Int64[np.ndarray, " images"],
    test_groups: Int64[np.ndarray, " _"],
) -> _Answers:
    gallery = F.normalize(train.values, dim=1)
    asking = train if test is None else test
    sizes = np.bincount(train_groups, minlength=int(test_groups.max()) + 1)
    # a picture alone in its group could never be right, and would only lower the score
    has_answer = sizes[test_groups] > (1 if test is None else 0)
    candidates = np.flatnonzero(has_answer)
    if not len(candidates):
        raise ValueError(
            "retrieval: no picture has another one of its class or group to be found: "
            "group pictures that belong together"
        )
    if len(candidates) > config.max_queries:
        generator = np.random.default_rng(config.seed)
        candidates = np.sort(generator.choice(candidates, config.max_queries, replace=False))
    precision, first = [], []
    groups = torch.from_numpy(train_groups)
    for rows in torch.split(torch.from_numpy(candidates), chunk_size(len(gallery))):
        cosines = F.normalize(asking.values[rows], dim=1) @ gallery.T
        if test is None:
            cosines[torch.arange(len(rows)), rows] = -torch.inf
        # stable: ties of equal pictures are ranked alike on every machine
        order = cosines.argsort(dim=1, descending=True, stable=True)
        own = torch.from_numpy(test_groups[rows.numpy()])
        right: Bool[Tensor, "batch _"] = groups[order] == own[:, None]
        if test is None:
            right = right[:, :-1]  # the last place is the picture itself
        precision.append(precision_of_rankings(right).numpy())
        first.append(right.int().argmax(dim=1).numpy())
    return _Answers(np.concatenate(precision), np.concatenate(first))


@dataclass(frozen=True)
class NearDuplicates:
    """Which pictures have a near duplicate, and the nearest of these pairs."""

    has_one: Bool[Tensor, " images"]
    num_pairs: int
    pairs: Int64[Tensor, "listed 2"]
    """At most ``MOST_LISTED``, the nearest first."""
    cosines: Float[Tensor, " listed"]


def near_duplicates(
    train: Features, test: Features | None = None, *, least: float
) -> NearDuplicates:
    """Find the pairs of pictures whose centred features have a cosine of ``least`` or more.

    Rows of ``test`` come after those of ``train``; the mean over all pictures is taken out, since
    features that are never negative all point into one corner. Memory is bounded even if all
    pictures are alike: of the pairs only the nearest are kept.
    """
    values = train.values if test is None else torch.cat([train.values, test.values])
    values = F.normalize((values - values.mean(dim=0)).float(), dim=1)
    has_one = torch.zeros(len(values), dtype=torch.bool)
    num_pairs = 0
    pairs, pair_cosines = torch.zeros(0, 2, dtype=torch.int64), values.new_zeros(0)
    step = chunk_size(len(values))
    for start in range(0, len(values), step):
        cosines = values[start : start + step] @ values[start:].T
        size = len(cosines)
        cosines[:, :size] -= 3 * torch.ones(size, size).tril()  # each pair once, none with itself
        # 1e-6 below: copies of a picture differ in the last bits of float32
        rows = (cosines.amax(dim=1) >= least - 1e-6).nonzero()[:, 0]
        is_near = cosines[rows] >= least - 1e-6
        num_pairs += int(is_near.sum())
        has_one[start + rows] = True
        has_one[start:] |= is_near.any(dim=0)
        near = is_near.nonzero()
        here = cosines[rows[near[:, 0]], near[:, 1]]
        pair_cosines = torch.cat([pair_cosines, here])
        pairs = torch.cat([pairs, torch.stack([rows[near[:, 0]], near[:, 1]], dim=1) + start])
        # cut at every chunk, or a set of equal pictures would list n squared pairs
        nearest_first = pair_cosines.argsort(descending=True, stable=True)[:MOST_LISTED]
        pair_cosines, pairs = pair_cosines[nearest_first], pairs[nearest_first]
    return NearDuplicates(has_one, num_pairs, pairs, pair_cosines)


def _groups(
    config: RetrievalConfig, train: Features, test: Features | None
) -> tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]] | None:
    """Return the group of each gallery picture and of each asking one, as numbers."""
    asking = train if test is None else test
    if config.groups is None:
        if train.labels is None or asking.labels is None:
            return None
        return train.labels.numpy(), asking.labels.numpy()
    by_path = read_groups(Path(config.groups))
    numbers = {group: number for number, group in enumerate(dict.fromkeys(by_path.values()))}
    groups = []
    for features in (train, asking):
        missing = [name for name in features.names if name not in by_path]
        if missing:
            raise ValueError(
                f"{config.groups} has no group for {len(missing)} pictures, such as {missing[0]}: "
                "give each a line"
            )
        groups.append(np.array([numbers[by_path[name]] for name in features.names], np.int64))
    return groups[0], groups[1]


def read_groups(path: Path) -> dict[str, str]:
    """Return the group of each path.

    Raises:
        ValueError: if the file has no such columns.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        try:
            rows = list(csv.DictReader(file))
        except csv.Error as error:
            raise ValueError(f"{path} cannot be read as a table: {error}") from error
    if not rows or not {"path", "group"} <= rows[0].keys():
        raise ValueError(f"{path} needs a first line with the columns path and group, and rows")
    return {row["path"]: row["group"] for row in rows}


def _protocol(config: RetrievalConfig, *, grouped: bool, leave_one_out: bool) -> dict[str, Any]:
    protocol: dict[str, Any] = {
        "near_duplicates": f"cosine of centred features of {config.duplicate_cosine:g} or more",
        "seed": config.seed,
    }
    if not grouped:
        return protocol
    return protocol | {
        "question": "which pictures are of the same "
        + ("group" if config.groups else "class")
        + ", by cosine",
        "gallery": "all other pictures" if leave_one_out else "the fit set",
        "recall": "share of queries with one right answer or more among the first k",
        "map": "mean of the average precision over the whole ranking",
        "max_queries": config.max_queries,
    }
