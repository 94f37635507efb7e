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
from jaxtyping import Float, Int64
from torch import Tensor, nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.data.loader import epoch_order
from swav.data.random import Stream
from swav.evals.harness.accuracy import count_right, share_metrics, top1_and_top5
from swav.evals.harness.extract import Features
from swav.evals.harness.finetune import FineTune
from swav.evals.harness.input import PUBLISHED, InputConfig
from swav.evals.harness.splits import (
    check_comparable,
    check_held_out,
    labels_of,
    stratified_split,
    take,
)
from swav.evals.harness.subject import Subject
from swav.evals.harness.task import settings_of
from swav.evals.harness.training import train_objective
from swav.evals.harness.views import view_features
from swav.run_folder.result import Result


@dataclass(frozen=True, kw_only=True)
class LinearSGDConfig:
    """Accuracy of a linear layer by the published protocol: SGD on random crops and flips."""

    name: ClassVar[str] = "linear_sgd"
    title: ClassVar[str] = "Linear classifier by SGD"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ("start", "random", "pixels")
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
        check_held_out(self.held_out)
        check_ranges(
            self,
            lr_per_256="(0, inf)",
            momentum="[0, 1)",
            weight_decay="[0, inf)",
            scale="(0, 1]",
            seed="[0, 9e18]",
        )

    def learning_rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        # 0.3 for 256 pictures is the published rate; the cosine steps by epochs there too
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
        features = subject.train_features, subject.test_features
        return run(self, drawn, *features, device=subject.device)


def run(
    config: LinearSGDConfig,
    views: Iterator[Float[Tensor, "images features"]],
    train: Features,
    test: Features | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Result:
    """Return top-1 and top-5 accuracy of the layer after the last epoch.

    Args:
        config: the protocol.
        views: features of random views of the pictures of ``train``; ``config.passes`` are drawn,
            and kept only if they are needed again.
        train: the same pictures without augmentation, for their labels and, without ``test``, to
            be scored in part.
        test: pictures to score.
        device: where the layer is trained.

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
    test_labels = torch.from_numpy(labels_of(test, task=config.name))
    train_labels = torch.from_numpy(labels[rows])
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    chosen = (values[torch.from_numpy(rows)] for values in views)
    layer = trained_layer(
        config,
        chosen,
        train_labels,
        feature_dim=train.values.shape[1],
        num_classes=num_classes,
        device=device,
    )
    with torch.no_grad():
        ranked = layer(test.values).topk(min(5, num_classes), dim=1).indices
    num_right = count_right(ranked, test_labels, num_classes=num_classes)
    metrics, intervals = share_metrics(num_right, len(test_labels))
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
            "score": len(test_labels),
            "classes": len(np.unique(train_labels)),
            "features": train.values.shape[1],
        },
    )


def trained_layer(
    config: LinearSGDConfig,
    views: Iterator[Float[Tensor, "images features"]],
    labels: Int64[Tensor, " images"],
    *,
    feature_dim: int,
    num_classes: int,
    device: torch.device | str = "cpu",
) -> nn.Linear:
    """Return the layer after all epochs, each on one set of views, the kept ones in turn."""
    # the loop of all trainings costs 0.7 ms a step more than bare SGD (512 x 10, batch 256, one
    # core): a tenth of the 140 s that CIFAR-10 takes, most of which is spent on the views
    objective = FineTune(
        nn.Flatten(), labels, num_classes, feature_dim=feature_dim, seed=config.seed
    )
    # momentum 0.9, weight decay 1e-6, no Nesterov: the published evaluation's; rates come below
    optimizer = torch.optim.SGD(
        objective.parameters(), lr=1.0, momentum=config.momentum, weight_decay=config.weight_decay
    )
    per_epoch = -(-len(labels) // config.batch_size)
    train_objective(
        objective,
        optimizer,
        lambda _: _batches(config, views, len(labels)),
        lambda clock: [config.learning_rate_at(clock.epoch)],
        steps_per_epoch=per_epoch,
        total_steps=per_epoch * config.epochs,
        seed=config.seed,
        device=device,
    )
    return objective.head.cpu()


def _batches(
    config: LinearSGDConfig, views: Iterator[Float[Tensor, "images features"]], num_images: int
) -> Iterator[Batch]:
    """Yield the features of all epochs as maps of one pixel; the last batch may be smaller."""
    kept: list[Tensor] = []
    for epoch in range(config.epochs):
        if epoch < config.passes:
            values = next(views)
            # kept only if they come again: all passes of ImageNet are 100 x 10 GB
            if config.passes < config.epochs:
                kept.append(values)
        else:
            values = kept[epoch % config.passes]
        # the last batch may be smaller: every picture counts in every epoch
        order = torch.from_numpy(epoch_order(num_images, config.seed, epoch))
        for rows in torch.split(order, config.batch_size):
            yield Batch((values[rows, :, None, None],), 1, rows)


def _protocol(config: LinearSGDConfig, *, own_split: bool) -> dict[str, Any]:
    return {
        "classifier": "linear layer on frozen features, SGD, random resized crops and flips, "
        "cosine by epochs, last epoch",
        "split": f"{config.held_out:.0%} of each class held out by seed"
        if own_split
        else "fit and score sets",
        **settings_of(config, without=("held_out", "input")),
    }
