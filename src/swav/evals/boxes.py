"""Mean average precision of boxes that were found, by COCO's definition."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from swav.data.sources.annotated import Annotated


class DetectedBoxes(NamedTuple):
    """The boxes that a detector found in a picture, with their classes and scores."""

    boxes: Float[Tensor, "objects 4"]
    labels: Int64[Tensor, " objects"]
    scores: Float[Tensor, " objects"]


def mean_average_precision(
    detected: Sequence[DetectedBoxes], annotated: Annotated
) -> dict[str, Any]:
    """Return ``map``, ``ap50``, ``ap75`` and, by name, the ``per_class`` mean over thresholds.

    COCO's definition: 101 points of recall, at most 100 boxes a picture; ignored objects count
    neither way.

    Raises:
        ValueError: if nothing is to be found.
    """
    if not any((~objects.ignored).any() for objects in annotated.objects):
        raise ValueError(f"{annotated.pictures.data}: not one box to find in the scored pictures")
    # pycocotools counts, as in every published number; torchmetrics prepares its input
    measure = average_precision_class()(
        box_format="xyxy",
        iou_type="bbox",
        rec_thresholds=np.linspace(0, 1, 101).tolist(),  # torchmetrics' own are rounded to float32
        class_metrics=True,
        backend="pycocotools",
    )
    measure.warn_on_many_detections = False  # the best hundred count, as said
    measure.update(
        [boxes._asdict() for boxes in detected],
        [
            {
                "boxes": torch.from_numpy(objects.boxes),
                "labels": torch.from_numpy(objects.labels),
                "iscrowd": torch.from_numpy(objects.ignored.astype(np.int64)),
            }
            for objects in annotated.objects
        ],
    )
    computed = measure.compute()
    names = [annotated.classes[int(label)] for label in computed["classes"].reshape(-1)]
    values = [float(value) for value in computed["map_per_class"].reshape(-1)]
    return {
        "map": float(computed["map"]),
        "ap50": float(computed["map_50"]),
        "ap75": float(computed["map_75"]),
        # pycocotools gives -1 for a class without objects
        "per_class": {name: value for name, value in zip(names, values, strict=True) if value >= 0},
    }


def average_precision_class() -> Any:
    """Return torchmetrics' mean average precision.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import pycocotools  # noqa: F401  # what torchmetrics computes with
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError as error:
        raise ValueError(
            f"detection needs an extra: pip install 'swav[detect]' ({error})"
        ) from None
    return MeanAveragePrecision
