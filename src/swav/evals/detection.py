"""How well a backbone starts a detector: boxes of objects, scored by mean average precision.

The detector is torchvision's, on a feature pyramid (SwAV, sec. 4.2 and appendix A.5, used
Detectron2's on the last stage). The same training from the untrained network stands beside it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.data import Dataset

from swav.config import check_ranges
from swav.data import random
from swav.data.batch import Batch
from swav.data.detection_loader import PaddedPictures
from swav.data.eval_transform import EvalTransform
from swav.data.processes import items_of
from swav.data.sources.annotated import Annotated
from swav.data.sources.decode import UnreadablePicture
from swav.engine import Clock, Objective, StepOutput
from swav.evals.boxes import DetectedBoxes, average_precision_class, mean_average_precision
from swav.evals.detectors import build_detector
from swav.evals.harness.finetune import network_of
from swav.evals.harness.input import AS_THE_MODEL, InputConfig
from swav.evals.harness.subject import Subject
from swav.evals.harness.task import settings_of
from swav.evals.harness.training import step_rate, train_objective
from swav.ops.metrics import jackknife_intervals
from swav.run_folder.result import Metric, Result

METRICS = {
    "map": Metric(title="mean average precision, IoU 0.5 to 0.95"),
    "ap50": Metric(title="average precision at IoU 0.5"),
    "ap75": Metric(title="average precision at IoU 0.75"),
}


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """Mean average precision of a detector that starts from the network (VOC or COCO boxes)."""

    name: ClassVar[str] = "detection"
    title: ClassVar[str] = "Detection"
    needs_labels: ClassVar[bool] = False
    baselines: ClassVar[tuple[str, ...]] = (
        "start",
        "random",
    )
    input: ClassVar[InputConfig] = AS_THE_MODEL
    detector: Literal["faster-rcnn", "retinanet"] = "faster-rcnn"
    frozen: bool = False
    """Keep the network as it is, its BatchNorm statistics too, and train what is on top of it."""
    steps: int = 1000
    batch_size: int = 4
    learning_rate: float = 0.01
    warmup_steps: int = 100
    warmup_factor: float = 1 / 3
    """Share of the learning rate that the warm-up starts with."""
    drops: tuple[float, ...] = (0.75, 0.92)
    """Shares of the training after which the rate is a tenth."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float | None = 10.0
    """Gradients are scaled down to this norm."""
    sizes: tuple[int, ...] = (480,)
    """Shorter side of the picture: any of these in training, the last one for scoring."""
    max_size: int = 1333
    """Of the longer side."""
    pyramid_dim: int = 256
    head_dim: int = 1024
    boxes_per_picture: int = 512
    """Proposals that the head of Faster R-CNN learns from."""
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "pyramid_dim", "head_dim", "boxes_per_picture")
        for name in (*positive, "learning_rate", "warmup_factor"):
            if asdict(self)[name] <= 0:
                raise ValueError(f"{name} {asdict(self)[name]} must be above 0")
        if not self.sizes or min(self.sizes) < 32:
            raise ValueError(f"sizes {self.sizes} must be numbers of pixels, 32 or more")
        if self.max_size < max(self.sizes):
            raise ValueError(f"max_size {self.max_size} must be at least {max(self.sizes)}")
        if any(not 0 < drop < 1 for drop in self.drops):
            raise ValueError(f"drops {self.drops} must be shares between 0 and 1")
        check_ranges(
            self,
            learning_rate="(0, inf)",
            warmup_steps="[0, inf)",
            warmup_factor="(0, 1]",
            momentum="[0, 1)",
            weight_decay="[0, inf)",
            clip_norm="(0, inf)",
            seed="[0, 9e18]",
        )

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on a copy of a subject's network."""
        backbone, transform = network_of(subject, task="detection")
        if subject.data.boxes is None:
            raise ValueError(
                f"detection needs boxes, {subject.data.fit_on} has none: give DATA in the layout "
                "of VOC (VOCdevkit/VOC2007) or COCO (annotations/instances_train*.json)"
            )
        return run(self, backbone, transform, *subject.data.boxes, workers=subject.workers)


def voc0712() -> DetectionConfig:
    """Return SwAV's schedule for VOC07+12 (batch 16, 24,000 steps), as far as torchvision goes.

    Published with Detectron2's Faster R-CNN on C4, with an extra BatchNorm after the last stage,
    statistics over 8 GPUs, and AP of VOC's own definition. Here: a feature pyramid, statistics of
    the whole batch in one process, difficult objects left out of training, AP of COCO's
    definition.
    """
    return DetectionConfig(
        steps=24000,
        batch_size=16,
        learning_rate=0.1,
        warmup_steps=1000,
        warmup_factor=0.333,
        drops=(18 / 24, 22 / 24),
        clip_norm=None,
        sizes=tuple(range(480, 801, 32)),
    )


def run(
    config: DetectionConfig,
    backbone: nn.Module,
    transform: EvalTransform,
    train: Annotated,
    test: Annotated,
    *,
    folder: Path | None = None,
    workers: int = 0,
) -> Result:
    """Return ``map`` (over thresholds 0.5 to 0.95), ``ap50`` and ``ap75``.

    Args:
        config: detector and schedule.
        backbone: to start from; left as it was.
        transform: its normalisation.
        train: to learn from.
        test: to score, the same classes.
        folder: to resume an interrupted training from.
        workers: processes that read pictures.

    Raises:
        ValueError: if the packages that score are missing, or sets are too small.
    """
    # before the training: a package that is missing would otherwise be found hours later
    average_precision_class()
    for part, sets in (("fit", train), ("score", test)):
        if not any(len(objects.labels) for objects in sets.objects):
            raise ValueError(f"the pictures to {part} have not one box: detection needs some")
    detector = trained_detector(config, backbone, transform, train, folder=folder, workers=workers)
    detected = find(detector, test, workers=workers)
    precision = mean_average_precision(detected, test)
    per_class = precision.pop("per_class")
    return Result(
        task=config.name,
        title=config.title,
        protocol=_protocol(config),
        metrics=precision,
        about=METRICS,
        lead="map",
        intervals=_intervals(precision, detected, test),
        seeds=(config.seed,),
        counts={
            "fit": len(train.objects),
            "score": len(test.objects),
            "classes": len(train.classes),
            "fit_boxes": sum(len(objects.labels) for objects in train.objects),
            "score_boxes": sum(len(objects.labels) for objects in test.objects),
        },
        details={"map_of_classes": per_class},
    )


def _intervals(
    precision: Mapping[str, float], detected: Sequence[DetectedBoxes], test: Annotated
) -> dict[str, tuple[float, float]]:
    def of_some(rows: Int64[np.ndarray, " kept"]) -> dict[str, Any]:
        try:
            return mean_average_precision(
                [detected[row] for row in rows], test.of(test.pictures.subset(rows))
            )
        except ValueError:  # all boxes are in the pictures that are left out
            return {}

    return jackknife_intervals(precision, of_some, len(detected))


@final
class Detection(Objective):
    """The sum of a detector's losses; boxes are looked up by position."""

    def __init__(self, detector: nn.Module, annotated: Annotated, *, seed: int, frozen: bool):
        super().__init__()
        self.detector = detector
        self._annotated = annotated
        self._seed = seed
        self._frozen = frozen
        if frozen:
            self.encoder.requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        """The network below the pyramid."""
        return self.detector.get_submodule("backbone.trunk")

    def before_step(self, _clock: Clock) -> None:
        """Keep the BatchNorm statistics of a frozen network."""
        if self._frozen:
            self.encoder.eval()

    def forward(self, batch: Batch, clock: Clock) -> StepOutput:
        """Return the loss on pictures that are flipped or not, by (seed, epoch, picture)."""
        # by position and not by place in the batch: resuming and workers then change no flip
        (padded,) = batch.views
        indices = batch.indices.cpu().numpy()
        draws = random.uniforms(
            seed=self._seed, epoch=clock.epoch, indices=indices, view=0, num_draws=1
        )
        pairs = [
            self._example(picture, int(index), flip=bool(draw < 0.5))
            for picture, index, draw in zip(padded, indices, draws[:, 0], strict=True)
        ]
        losses: dict[str, Tensor] = self.detector(
            [picture for picture, _ in pairs], [target for _, target in pairs]
        )
        metrics = {name: loss.detach().cpu() for name, loss in losses.items()}
        return StepOutput(torch.stack(list(losses.values())).sum(), metrics)

    def _example(
        self, padded: Float[Tensor, "channels _ _"], index: int, *, flip: bool
    ) -> tuple[Float[Tensor, "channels _ _"], dict[str, Tensor]]:
        """Return a picture without its padding, and what is to be found in it."""
        height, width = self._annotated.sizes[index].tolist()
        picture = padded[:, :height, :width]
        objects = self._annotated.objects[index]
        # what scoring ignores is not learnt either
        boxes = torch.from_numpy(objects.boxes[~objects.ignored])
        if flip:
            picture = picture.flip(2)
            left, top, right, bottom = boxes.unbind(1)
            boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
        # torchvision's class 0 is the background
        labels = torch.from_numpy(objects.labels[~objects.ignored]) + 1
        return picture, {"boxes": boxes.to(padded.device), "labels": labels.to(padded.device)}


def trained_detector(
    config: DetectionConfig,
    backbone: nn.Module,
    transform: EvalTransform,
    train: Annotated,
    *,
    folder: Path | None = None,
    workers: int = 0,
) -> nn.Module:
    """Return a detector after the last step, in evaluation mode."""
    # torchvision's layers draw from the global stream, which the caller's numbers depend on
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # of the layers that are new
        detector = build_detector(
            config.detector,
            copy.deepcopy(backbone).requires_grad_(True),
            num_classes=len(train.classes),
            sizes=config.sizes,
            max_size=config.max_size,
            mean=transform.mean,
            std=transform.std,
            pyramid_dim=config.pyramid_dim,
            head_dim=config.head_dim,
            boxes_per_picture=config.boxes_per_picture,
        )
    objective = Detection(detector, train, seed=config.seed, frozen=config.frozen)
    # a single rate for trunk and head, as published (appendix A.5)
    optimizer = torch.optim.SGD(
        [weight for weight in objective.parameters() if weight.requires_grad],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    pictures = PaddedPictures(train, batch_size=config.batch_size, seed=config.seed)
    train_objective(
        objective,
        optimizer,
        lambda step: items_of(pictures, range(step, config.steps), workers=workers),
        lambda clock: [_rate(config, clock)],
        steps_per_epoch=pictures.steps_per_epoch,
        total_steps=config.steps,
        seed=config.seed,
        clip_norm=config.clip_norm,
        device=next(backbone.parameters()).device,
        folder=folder,
    )
    return objective.detector


@final
class _Readable(Dataset[Tensor | None]):
    """The picture at a position, None if it cannot be read."""

    def __init__(self, annotated: Annotated) -> None:
        self._annotated = annotated

    def __getitem__(self, index: int) -> Tensor | None:
        try:
            return self._annotated.picture(index)
        except UnreadablePicture:
            return None


@torch.no_grad()
def find(detector: nn.Module, annotated: Annotated, *, workers: int = 0) -> list[DetectedBoxes]:
    """Return what a detector finds in every picture; nothing in one that cannot be read."""
    device = next(detector.parameters()).device
    detector.eval()
    detected = []
    numbers = range(len(annotated.objects))
    for picture in items_of(_Readable(annotated), numbers, workers=workers):
        if picture is None:
            detected.append(DetectedBoxes(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0)))
            continue
        (answer,) = detector([picture.to(device).float() / 255])
        boxes, labels, scores = (answer[key].cpu() for key in ("boxes", "labels", "scores"))
        detected.append(DetectedBoxes(boxes, labels - 1, scores))
    return detected


def _rate(config: DetectionConfig, clock: Clock) -> float:
    """Return the rate of a step: linear warm-up, then falling to a tenth at each drop."""
    done = clock.step / clock.total_steps
    rate = step_rate(config.learning_rate, done, config.drops, 0.1)
    if clock.step >= config.warmup_steps:
        return rate
    # linear, from a third: Detectron2's warm-up, as published (appendix A.5)
    share = clock.step / config.warmup_steps
    return rate * (config.warmup_factor + (1 - config.warmup_factor) * share)


def _protocol(config: DetectionConfig) -> dict[str, Any]:
    return {
        "average_precision": "COCO's (101 points, 100 boxes), difficult objects and crowds ignored",
        "augmentation": "left-right flips, shorter sides drawn from sizes",
    } | settings_of(config)
