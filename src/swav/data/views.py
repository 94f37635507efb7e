"""From decoded pictures to the views of multi-crop, by one of three pipelines.

Workers make ``Crops``: bytes, cropped and resized, and with the pipelines ``fused`` and ``pillow``
also jittered, greyed, blurred and solarised. ``finish`` turns them into a ``Batch`` on the device
of the network: it normalises, after the photometric operations when the pipeline is ``device``.
All pipelines draw the same parameters from the same counters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from swav.data import augment, crops, fused, philox, plain
from swav.data.augment import Photometry
from swav.data.batch import Batch
from swav.data.crops import CropGroup, ViewsConfig
from swav.data.decode import Decoded
from swav.data.sources import Pipeline

REDUCTIONS = (8, 4, 2)


class Crops(NamedTuple):
    """Views as bytes, target views first, and what is still to be done to them."""

    views: tuple[UInt8[Tensor, "batch channels _ _"], ...]
    photometry: tuple[Photometry, ...]
    """One for each view, to be applied on the device; empty if that is done."""
    num_targets: int
    indices: Int64[Tensor, " batch"]


def make_crops(
    pictures: UInt8[Tensor, "images channels _ _"] | Sequence[Decoded],
    indices: Int64[np.ndarray, " batch"],
    config: ViewsConfig,
    *,
    seed: int,
    epoch: int,
    pipeline: Pipeline = "fused",
) -> Crops:
    """Return the views of some pictures as bytes.

    Args:
        pictures: all pictures of a set of one size, or those at ``indices``.
        indices: positions in the set; they name the pictures to the random draws.
        config: which views.
        seed: of the run.
        epoch: of the run.
        pipeline: what makes the views.
    """
    views: list[Tensor] = []
    photometry: list[Photometry] = []
    for group in config.groups:
        for _ in range(group.count):
            draws = philox.uniforms(
                seed=seed,
                epoch=epoch,
                indices=indices,
                view=len(views),
                num_draws=crops.NUM_DRAWS + augment.NUM_DRAWS,
            )
            drawn = augment.draw_photometry(group.augment, draws[:, crops.NUM_DRAWS :])
            view = _empty(len(indices), pictures, group)
            _make_view(pictures, indices, group, draws, drawn, pipeline, view)
            views.append(view)
            photometry.append(drawn)
    later = tuple(photometry) if pipeline == "device" else ()
    return Crops(tuple(views), later, config.num_targets, torch.from_numpy(indices))


def finish(made: Crops, config: ViewsConfig, device: torch.device | None = None) -> Batch:
    """Return the views normalised on the device, after what is left of their augmentation."""
    mean = torch.tensor(config.mean, device=device)[:, None, None]
    std = torch.tensor(config.std, device=device)[:, None, None]
    views: list[Tensor] = []
    for place, crop in enumerate(made.views):
        view = crop.to(device, non_blocking=True).float().div_(255)
        if made.photometry:
            view = augment.augment(view, made.photometry[place])
        views.append(view.sub_(mean).div_(std))
    return Batch(tuple(views), made.num_targets, made.indices.to(device, non_blocking=True))


def reduction(config: ViewsConfig, height: int, width: int) -> int:
    """Return by what whole factor a picture may be shrunk while it is decoded.

    The smallest box that any group can draw of it still has a pixel for each pixel of the view.
    """
    per_pixel = float("inf")
    for group in config.groups:
        area = group.scale[0] * height * width
        tall = min((area / group.ratio[1]) ** 0.5, height, width / group.ratio[1])
        wide = min((area * group.ratio[0]) ** 0.5, width, height * group.ratio[0])
        per_pixel = min(per_pixel, tall / group.size[0], wide / group.size[1])
    allowed = [factor for factor in REDUCTIONS if per_pixel >= factor]
    return max(allowed, default=1)


def _empty(
    batch: int, pictures: Tensor | Sequence[Decoded], group: CropGroup
) -> UInt8[Tensor, "batch channels height width"]:
    """Return memory for a view; of a worker, such as the trainer reads without another copy."""
    first = pictures[0]
    channels = len(first if isinstance(first, Tensor) else first.pixels)
    view = torch.empty(batch, channels, *group.size, dtype=torch.uint8)
    return view if get_worker_info() is None else view.share_memory_()  # type: ignore[no-untyped-call]


def _make_view(
    pictures: Tensor | Sequence[Decoded],
    indices: Int64[np.ndarray, " batch"],
    group: CropGroup,
    draws: Float[np.ndarray, "batch draws"],
    drawn: Photometry,
    pipeline: Pipeline,
    out: UInt8[Tensor, "batch channels height width"],
) -> None:
    if isinstance(pictures, Tensor):
        sizes = np.tile(np.array(pictures.shape[2:], dtype=np.int64), (len(indices), 1))
    else:
        sizes = np.array([picture.size for picture in pictures], dtype=np.int64)
    whole_boxes, flips = crops.draw_boxes(group, sizes, draws[:, : crops.NUM_DRAWS])
    boxes = whole_boxes.astype(np.float32)
    at_once = drawn if pipeline == "fused" else None
    if pipeline == "pillow":
        for row, index in enumerate(indices.tolist()):
            picture = pictures[index] if isinstance(pictures, Tensor) else pictures[row].pixels
            out[row] = plain.render(picture, boxes[row], bool(flips[row]), drawn, row, group.size)
    elif isinstance(pictures, Tensor):
        fused.render(pictures, indices, boxes, flips, at_once, out)
    else:
        first = np.zeros(1, dtype=np.int64)
        for row, decoded in enumerate(pictures):
            one = slice(row, row + 1)
            box = (boxes[one] / decoded.reduction).astype(np.float32)
            photometry = None if at_once is None else at_once[one]
            fused.render(decoded.pixels[None], first, box, flips[one], photometry, out[one])
