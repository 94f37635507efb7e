"""Weighted k-nearest-neighbour classification on frozen features.

Cosine, votes weighted by ``exp(similarity / temperature)`` (Wu et al., 2018, arXiv 1805.01978).
Nothing is trained, so nothing can be tuned in favour of a network.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from swav.config import check_ranges
from swav.evals.harness.accuracy import share_metrics, top_accuracy
from swav.evals.harness.extract import Features
from swav.evals.harness.input import AS_THE_MODEL, PUBLISHED, InputConfig
from swav.evals.harness.splits import check_comparable, labels_of
from swav.evals.harness.subject import Subject
from swav.ops.neighbours import nearest
from swav.run_folder.result import Result

LEADING_K = 10
"""The k nearest to it gives the number that stands for the task."""
VOTERS = 8192
"""Queries whose votes are counted at a time: a table of these by classes is in memory."""


@dataclass(frozen=True, kw_only=True)
class KNNConfig:
    """Accuracy of the k nearest labelled pictures' weighted vote."""

    name: ClassVar[str] = "knn"
    title: ClassVar[str] = "Nearest neighbours"
    finding: ClassVar[str] = "of the pictures get their right label from their nearest neighbours"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ("start", "random", "pixels", "patch-kmeans")
    k: tuple[int, ...] = (5, 10, 20, 100, 200)
    """Numbers of neighbours; those the set is too small for are left out."""
    temperature: float = 0.07
    input: InputConfig = AS_THE_MODEL

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k {self.k} must be numbers of neighbours, each 1 or more")
        check_ranges(self, temperature="(0, inf)")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on a subject's features."""
        return run(self, subject.train_features, subject.test_features)


def published() -> KNNConfig:
    """Return the usual protocol for ImageNet: k of 10 to 200, temperature 0.07, 224 of 256."""
    return KNNConfig(k=(10, 20, 100, 200), input=PUBLISHED)


def run(config: KNNConfig, train: Features, test: Features | None = None) -> Result:
    """Return the accuracy for each k; without ``test`` each picture is left out in turn.

    Raises:
        ValueError: if labels are missing, classes differ or no k is small enough.
    """
    if test is not None:
        check_comparable(train, test, task="knn")
    queries = train if test is None else test
    train_labels = torch.from_numpy(labels_of(train, task="knn"))
    labels = torch.from_numpy(labels_of(queries, task="knn"))
    available = len(train_labels) - (test is None)
    # a k beyond the set would be another rule than its name says, so it is left out and noted
    usable = sorted({k for k in config.k if k <= available})
    if not usable:
        raise ValueError(f"knn with k {config.k} on {available} labelled pictures: use a smaller k")
    similarities, indices = nearest(
        queries.values, train.values, num_neighbours=usable[-1], leave_one_out=test is None
    )
    # over the nearest's weight: exp(1 / 0.07) is 1.6e6, and only ratios of votes matter
    weights = ((similarities - similarities[:, :1]) / config.temperature).exp()
    num_right = {
        f"top1_k{k}": int(_right(weights[:, :k], train_labels[indices[:, :k]], labels).sum())
        for k in usable
    }
    metrics, intervals = share_metrics(num_right, len(labels))
    return Result(
        task=config.name,
        title=config.title,
        protocol=_protocol(config, usable, leave_one_out=test is None),
        metrics=metrics,
        about={f"top1_k{k}": top_accuracy(1, f", k = {k}") for k in usable},
        lead=f"top1_k{min(usable, key=lambda k: abs(k - LEADING_K))}",
        finding=config.finding,
        intervals=intervals,
        counts={
            "fit": len(train_labels),
            "score": len(labels),
            "classes": len(set(train_labels.tolist())),
            "features": train.values.shape[1],
        },
    )


def _right(
    weights: Float[Tensor, "batch neighbours"],
    votes: Int64[Tensor, "batch neighbours"],
    labels: Int64[Tensor, " batch"],
) -> Bool[Tensor, " batch"]:
    """Return which queries' weighted vote names their own label."""
    num_classes = int(max(votes.max(), labels.max())) + 1
    chosen = [
        some.new_zeros(len(some), num_classes).scatter_add_(1, voted, some).argmax(dim=1)
        for some, voted in zip(
            torch.split(weights, VOTERS), torch.split(votes, VOTERS), strict=True
        )
    ]
    return torch.cat(chosen) == labels


def _protocol(config: KNNConfig, usable: list[int], *, leave_one_out: bool) -> dict[str, Any]:
    protocol: dict[str, Any] = {
        "classifier": "k nearest neighbours, cosine, votes weighted by exp(cosine / temperature)",
        "temperature": config.temperature,
        "k": usable,
        "split": "leave one out" if leave_one_out else "fit set and score set",
    }
    left_out = sorted(set(config.k) - set(usable))
    if left_out:
        protocol["note"] = f"k = {left_out} left out: more than the pictures to choose from"
    return protocol
