"""A linear layer trained on labels by SGD, with the network below it or on top of it frozen.

One training serves fine-tuning, the linear probe of the literature and training from scratch:
they differ in the rate of the trunk and in the weights it starts from.
"""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from swav.config import check_ranges
from swav.data.batch import Batch
from swav.data.eval_transform import EvalTransform
from swav.data.loader import StepViews, loader
from swav.data.sources.pictures import Pictures
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine import Clock, Objective, StepOutput
from swav.evals.harness.accuracy import count_right
from swav.evals.harness.extract import encode_all, network_encoder
from swav.evals.harness.splits import check_same_classes, labels_of, stratified_split
from swav.evals.harness.subject import Subject
from swav.evals.harness.task import settings_of
from swav.evals.harness.training import step_rate, train_objective

HEAD_STD = 0.01
"""Deviation of the weights that the linear layer starts with; its bias starts at 0."""


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """SGD on cross-entropy, with random resized crops and flips; the last epoch counts."""

    trunk_rate: float = 0.01
    """Learning rate of the network; 0 freezes it, its BatchNorm statistics too."""
    head_rate: float = 0.2
    """Learning rate of the linear layer."""
    epochs: int = 20
    min_steps: int = 0
    """Small sets are gone through more often than ``epochs`` until there are as many steps."""
    batch_size: int = 256
    """At most; a smaller set is one batch."""
    drops: tuple[float, ...] = (0.6, 0.8)
    """Shares of the training after which both rates are multiplied by ``drop_factor``."""
    drop_factor: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 0.0
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Range of the share of the picture that a training view shows."""
    flip: float = 0.5
    """Probability of a left-right flip; 0 where direction carries meaning."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):
            if asdict(self)[name] < least:
                raise ValueError(f"{name} {asdict(self)[name]} must be {least} or more")
        if any(not 0 < drop < 1 for drop in self.drops):
            raise ValueError(f"drops {self.drops} must be shares between 0 and 1")
        if not 0 < self.drop_factor <= 1:
            raise ValueError(f"drop_factor {self.drop_factor} must be above 0, at most 1: try 0.1")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area {self.crop_area} must be two shares, the smaller first")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip {self.flip} must be a probability, 0 to 1")
        check_ranges(
            self,
            trunk_rate="[0, inf)",
            head_rate="(0, inf)",
            min_steps="[0, inf)",
            momentum="[0, 1)",
            weight_decay="[0, inf)",
        )

    def protocol(self) -> dict[str, Any]:
        """Return what the numbers depend on, as plain JSON values."""
        return {"optimizer": "SGD on cross-entropy, steps down, last epoch"} | settings_of(self)


@final
class FineTune(Objective):
    """Cross-entropy of a linear layer on a network's features, labels looked up by position."""

    def __init__(
        self,
        trunk: nn.Module,
        labels: Int64[Tensor, " images"],
        num_classes: int,
        *,
        feature_dim: int,
        seed: int,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = trunk
        self.head = nn.Linear(feature_dim, num_classes)
        nn.init.normal_(self.head.weight, std=HEAD_STD, generator=generator)
        nn.init.zeros_(self.head.bias)
        self._labels = labels

    @property
    def encoder(self) -> nn.Module:
        """The network below the linear layer."""
        return self.trunk

    @property
    def classifier(self) -> nn.Module:
        """Network and linear layer, from pictures to logits."""
        return nn.Sequential(self.trunk, self.head)

    def freeze(self) -> None:
        """Keep the network as it is."""
        self.trunk.requires_grad_(False)

    @property
    def frozen(self) -> bool:
        """Whether only the linear layer learns."""
        return not any(weight.requires_grad for weight in self.trunk.parameters())

    def before_step(self, _clock: Clock) -> None:
        """Keep the BatchNorm statistics of a frozen network."""
        # before each step: fit puts the whole objective into training mode at its start
        if self.frozen:
            self.trunk.eval()

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the mean cross-entropy of the batch's only view."""
        (view,) = batch.views
        # looked up here, because a batch never holds labels
        labels = self._labels[batch.indices.cpu()].to(view.device)
        return StepOutput(F.cross_entropy(self.head(self.trunk(view)), labels))


def finetune(
    config: FineTuneConfig,
    backbone: nn.Module,
    pictures: Pictures,
    transform: EvalTransform,
    *,
    num_classes: int,
    seed: int,
    folder: Path | None = None,
    workers: int = 0,
) -> FineTune:
    """Return the trained classifier; ``backbone`` itself is left as it was.

    Args:
        config: the schedule.
        backbone: pooled features, ``num_features`` of them.
        pictures: with labels.
        transform: whose size and normalisation the training views have.
        num_classes: logits.
        seed: of the linear layer, the order of the pictures and their crops.
        folder: to resume an interrupted training from.
        workers: processes that make views.
    """
    labels = torch.from_numpy(labels_of(pictures, task="fine-tuning"))
    # a copy: the subject's network is judged by other tasks after this one
    objective = FineTune(
        copy.deepcopy(backbone),
        labels,
        num_classes,
        feature_dim=int(backbone.num_features),  # type: ignore[arg-type]
        seed=seed,
    )
    # a run may have frozen parts of its network; fine-tuning trains all of it or none
    objective.requires_grad_(True)
    if config.trunk_rate == 0:
        objective.freeze()
    views = StepViews(
        pictures,
        _views(config, transform),
        global_batch=min(config.batch_size, len(pictures)),
        seed=seed,
    )
    total_steps = max(views.steps_per_epoch * config.epochs, config.min_steps)
    groups: dict[str, tuple[nn.Module, float]] = {"head": (objective.head, config.head_rate)}
    if not objective.frozen:
        groups["trunk"] = (objective.trunk, config.trunk_rate)
    optimizer = torch.optim.SGD(
        [{"params": list(module.parameters()), "lr": rate} for module, rate in groups.values()],
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )

    def rates(clock: Clock) -> list[float]:
        done = clock.step / clock.total_steps
        return [
            step_rate(rate, done, config.drops, config.drop_factor) for _, rate in groups.values()
        ]

    train_objective(
        objective,
        optimizer,
        lambda step: loader(views, start_step=step, total_steps=total_steps, workers=workers),
        rates,
        steps_per_epoch=views.steps_per_epoch,
        total_steps=total_steps,
        seed=seed,
        device=next(backbone.parameters()).device,
        folder=folder,
    )
    return objective


def num_right(
    objective: FineTune, pictures: Pictures, transform: EvalTransform, *, workers: int = 0
) -> tuple[dict[str, int], int]:
    """Return how many readable pictures have their class first and among five, and of how many."""
    device = next(objective.parameters()).device
    encode = network_encoder(objective.classifier.eval(), transform, device=device)
    logits = encode_all(encode, pictures, workers=workers)
    assert logits.labels is not None
    num_logits = logits.values.shape[1]
    ranked = logits.values.topk(min(5, num_logits), dim=1).indices
    return count_right(ranked, logits.labels, num_classes=num_logits), len(ranked)


def _views(config: FineTuneConfig, transform: EvalTransform) -> ViewsConfig:
    """Return one random resized crop a picture, without any change of colour."""
    # crops and flips only: the published scripts do not touch colours here
    augment = AugmentConfig(flip=config.flip, jitter=0.0, grey=0.0, blur=0.0)
    _, height, width = transform.input_size
    group = CropGroup(count=1, size=(height, width), scale=config.crop_area, augment=augment)
    return ViewsConfig(groups=(group,), mean=transform.mean, std=transform.std)


class Network(NamedTuple):
    """A backbone and what turns pictures into its input."""

    backbone: nn.Module
    transform: EvalTransform


def network_of(subject: Subject, *, task: str) -> Network:
    """Return a subject's network.

    Raises:
        ValueError: if it is raw pixels.
    """
    if subject.backbone is None or subject.transform is None:
        raise ValueError(f"{task} trains a network, and pixels have none: give a run or a model")
    return Network(subject.backbone, subject.transform)


def labelled_parts(
    train: Pictures, test: Pictures | None, *, task: str, held_out: float, seed: int
) -> tuple[Pictures, Pictures, str]:
    """Return what to fit on, what to score, and how they were told apart.

    Raises:
        ValueError: if labels are missing, there is one class, or classes differ.
    """
    labels, split = labels_of(train, task=task), "fit and score sets"
    if len(np.unique(labels)) < 2:
        raise ValueError(f"{task} needs two classes or more, {train.data} has one")
    if test is None:
        rows = stratified_split(labels, held_out=held_out, seed=seed)
        train, test = train.subset(rows.train), train.subset(rows.held_out)
        split = f"{held_out:.0%} of each class held out by seed {seed}"
    labels_of(test, task=task)
    check_same_classes(train, test, task=task)
    return train, test, split


def num_classes(*sets: Pictures) -> int:
    """Return how many logits the classes of all sets need."""
    numbers = [label for some in sets if some.labels is not None for label in some.labels]
    return int(max(max(numbers), len(sets[0].classes) - 1)) + 1
