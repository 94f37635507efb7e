"""The published linear protocol: a linear layer on the frozen network, trained by SGD on views.

Random resized crops and flips to learn from, centre crops to be scored on, a cosine schedule by
epochs, no normalisation of the features (SwAV, appendix A.5, and its published evaluation). The
score is that of the last epoch, never that of the best.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import cos, pi
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from swav.data.loader import epoch_order
from swav.data.random import Stream
from swav.evals.harness.accuracy import count_right, shares, top1_and_top5
from swav.evals.harness.extract import Features
from swav.evals.harness.input import PUBLISHED, InputConfig
from swav.evals.harness.splits import check_comparable, labels_of, stratified_split, take
from swav.evals.harness.subject import Subject
from swav.evals.harness.views import view_features
from swav.run_folder.result import Result


@dataclass(frozen=True, kw_only=True)
class LinearSGDConfig:
    """Accuracy of a linear layer by the published protocol: SGD on random crops and flips."""

    name: ClassVar[str] = "linear_sgd"
    title: ClassVar[str] = "Linear classifier by SGD"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ("random", "pixels")
    epochs: int = 100
    passes: int = 4
    """Times that new views are drawn and encoded, which the epochs then take in turn; as many as
    there are epochs is the published protocol to the letter."""
    batch_size: int = 256
    lr_per_256: float = 0.3
    """Learning rate for each 256 pictures of a batch; it falls to 0 on a cosine, by epochs."""
    momentum: float = 0.9
    weight_decay: float = 1e-6
    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the share of the picture that a crop covers."""
    held_out: float = 0.2
    """Share of each class that is scored where there is no score set."""
    input: InputConfig = PUBLISHED
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "passes", "batch_size"):
            if asdict(self)[name] < 1:
                raise ValueError(f"{name} {asdict(self)[name]} must be 1 or more")
        if self.passes > self.epochs:
            raise ValueError(f"passes {self.passes} of {self.epochs} epochs: use {self.epochs}")
        if self.lr_per_256 <= 0:
            raise ValueError(f"lr_per_256 {self.lr_per_256} must be above 0")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out {self.held_out} must be between 0 and 1")

    def learning_rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        start = self.lr_per_256 * self.batch_size / 256
        return start * 0.5 * (1 + cos(pi * epoch / self.epochs))

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on views of a subject's pictures."""
        drawn: Iterator[Tensor] = (
            values
            for number in range(-(-self.passes // 2))
            for values in view_features(
                subject,
                subject.data.train,
                scale=self.scale,
                seed=self.seed,
                epoch=Stream.LINEAR_SGD + number,
            )
        )
        return run(self, drawn, subject.train_features, subject.test_features)


def run(
    config: LinearSGDConfig,
    views: Iterator[Float[Tensor, "images features"]],
    train: Features,
    test: Features | None = None,
) -> Result:
    """Return top-1 and top-5 accuracy of the layer after the last epoch.

    Args:
        config: the protocol.
        views: features of random views of the pictures of ``train``; ``config.passes`` are drawn,
            and kept only if they are needed again.
        train: the same pictures without augmentation, for their labels and, without ``test``, to
            be scored in part.
        test: pictures to score.

    Raises:
        ValueError: if labels are missing, classes differ, or a set is too small to split.
    """
    labels = labels_of(train, task=config.name)
    rows = np.arange(len(labels))
    own_split = test is None
    if test is None:
        split = stratified_split(labels, held_out=config.held_out, seed=config.seed)
        rows, test = split.train, take(train, split.held_out)
    check_comparable(train, test, task=config.name)
    judged = torch.from_numpy(labels_of(test, task=config.name))
    learnt = torch.from_numpy(labels[rows])
    layer = new_layer(train.values.shape[1], int(max(learnt.max(), judged.max())) + 1, config.seed)
    train_layer(layer, (values[torch.from_numpy(rows)] for values in views), learnt, config)
    with torch.no_grad():
        ranked = layer(test.values).topk(min(5, layer.out_features), dim=1).indices
    num_right = count_right(ranked, judged, num_classes=layer.out_features)
    metrics, intervals = shares(num_right, len(judged))
    return Result(
        task=config.name,
        title=config.title,
        protocol=_protocol(config, own_split=own_split),
        metrics=metrics,
        about={metric: top1_and_top5()[metric] for metric in num_right},
        lead="top1",
        intervals=intervals,
        seeds=(config.seed,),
        counts={
            "fit": len(rows),
            "score": len(judged),
            "classes": len(np.unique(learnt)),
            "features": train.values.shape[1],
        },
    )


def new_layer(num_features: int, num_classes: int, seed: int) -> nn.Linear:
    """Return a linear layer with weights from N(0, 0.01) and no bias yet."""
    layer = nn.Linear(num_features, num_classes)
    nn.init.normal_(layer.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(layer.bias)
    return layer


def train_layer(
    layer: nn.Linear,
    views: Iterator[Float[Tensor, "images features"]],
    labels: Int64[Tensor, " images"],
    config: LinearSGDConfig,
) -> None:
    """Train the layer for all epochs, each on one set of views, the kept ones in turn."""
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=1.0, momentum=config.momentum, weight_decay=config.weight_decay
    )
    kept: list[Tensor] = []
    for epoch in range(config.epochs):
        optimizer.param_groups[0]["lr"] = config.learning_rate_at(epoch)
        if epoch < config.passes:
            values = next(views)
            if config.passes < config.epochs:
                kept.append(values)
        else:
            values = kept[epoch % config.passes]
        order = torch.from_numpy(epoch_order(len(labels), config.seed, epoch))
        for batch in torch.split(order, config.batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(layer(values[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _protocol(config: LinearSGDConfig, *, own_split: bool) -> dict[str, Any]:
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
        if name not in ("held_out", "input")
    }
    return {
        "classifier": "linear layer on frozen features, SGD, random resized crops and flips, "
        "cosine by epochs, last epoch",
        "split": f"{config.held_out:.0%} of each class held out by seed"
        if own_split
        else "fit and score sets",
        **settings,
    }
