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
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from swav.data import random
from swav.data.batch import Batch
from swav.data.sources.decode import Decoded
from swav.data.views import augment, crops, numba_kernel, pillow_reference
from swav.data.views.augment import Photometry
from swav.data.views.crops import CropGroup, Pipeline, ViewsConfig

REDUCTIONS = (8, 4, 2)


class Crops(NamedTuple):
    """Views as bytes, target views first, and what is still to be done to them."""

    views: tuple[UInt8[Tensor, "batch channels _ _"], ...]
    photometry: tuple[Photometry, ...]
    """One for each view, to be applied on the device; empty if that is done."""
    num_targets: int
    indices: Int64[Tensor, " batch"]


class Shown(NamedTuple):
    """The pictures of a batch: rows of a set of one size, or one after the other."""

    pictures: UInt8[Tensor, "images channels _ _"] | Sequence[Decoded]
    rows: Int64[np.ndarray, " batch"] | None = None

    @property
    def sizes(self) -> Int64[np.ndarray, "batch 2"]:
        """Height and width of each picture."""
        if isinstance(self.pictures, Tensor):
            assert self.rows is not None
            return np.tile(np.array(self.pictures.shape[2:], dtype=np.int64), (len(self.rows), 1))
        return np.array([picture.size for picture in self.pictures], dtype=np.int64)

    @property
    def num_channels(self) -> int:
        """Channels of every picture."""
        first = self.pictures[0]
        return len(first if isinstance(first, Tensor) else first.pixels)


def make_crops(
    shown: Shown,
    indices: Int64[np.ndarray, " batch"],
    config: ViewsConfig,
    *,
    seed: int,
    epoch: int,
    pipeline: Pipeline = "fused",
    others: Shown | None = None,
) -> Crops:
    """Return the views of some pictures as bytes.

    Args:
        shown: the pictures.
        indices: positions in the set; they name the pictures to the random draws.
        config: which views.
        seed: of the run.
        epoch: of the run.
        pipeline: what makes the views.
        others: of each picture another one, from which every second view (the second target,
            every second small one) is taken instead.
    """
    sources = (shown, shown if others is None else others)
    drawn: list[_Drawn] = []
    for group in config.groups:
        for _ in range(group.count):
            draws = random.uniforms(
                seed=seed,
                epoch=epoch,
                indices=indices,
                view=len(drawn),
                num_draws=crops.NUM_DRAWS + augment.NUM_DRAWS,
            )
            drawn.append(_draw(group, sources[len(drawn) % 2].sizes, draws))
    views = tuple(_empty(len(indices), shown.num_channels, *view.group.size) for view in drawn)
    for first, source in enumerate(sources[: 1 if others is None else 2]):
        chosen = slice(first, None, 1 if others is None else 2)
        if pipeline == "pillow":
            _render_plainly(source, drawn[chosen], views[chosen])
        else:
            _render(source, drawn[chosen], views[chosen], with_colours=pipeline == "fused")
    later = tuple(view.photometry for view in drawn) if pipeline == "device" else ()
    return Crops(views, later, config.num_targets, torch.from_numpy(indices))


def finish(made: Crops, config: ViewsConfig, device: torch.device | None = None) -> Batch:
    """Return the views normalised on the device, after what is left of their augmentation."""
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    scale, shift = 1 / std, -mean / std
    if not made.photometry and (device is None or device.type == "cpu"):
        views = tuple(numba_kernel.normalise(view, scale / 255, shift) for view in made.views)
        return Batch(views, made.num_targets, made.indices)
    scales, shifts = (torch.from_numpy(each)[:, None, None].to(device) for each in (scale, shift))
    later: list[Tensor] = []
    for place, crop in enumerate(made.views):
        view = crop.to(device, non_blocking=True).float().div_(255)
        if made.photometry:
            view = augment.augment(view, made.photometry[place])
        later.append(view.mul_(scales).add_(shifts))
    return Batch(tuple(later), made.num_targets, made.indices.to(device, non_blocking=True))


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


class _Drawn(NamedTuple):
    """The parameters of one view of each picture of a batch."""

    group: CropGroup
    boxes: Float32[np.ndarray, "batch 4"]
    flips: Bool[np.ndarray, " batch"]
    photometry: Photometry


def _draw(
    group: CropGroup,
    sizes: Int64[np.ndarray, "batch 2"],
    draws: Float[np.ndarray, "batch draws"],
) -> _Drawn:
    boxes, flips = crops.draw_boxes(group, sizes, draws[:, : crops.NUM_DRAWS])
    photometry = augment.draw_photometry(group.augment, draws[:, crops.NUM_DRAWS :])
    return _Drawn(group, boxes.astype(np.float32), flips, photometry)


def _empty(
    batch: int, channels: int, height: int, width: int
) -> UInt8[Tensor, "batch channels height width"]:
    """Return memory for a view; of a worker, such as the trainer reads without another copy."""
    view = torch.empty(batch, channels, height, width, dtype=torch.uint8)
    return view if get_worker_info() is None else view.share_memory_()  # type: ignore[no-untyped-call]


def _render(
    shown: Shown, drawn: Sequence[_Drawn], views: Sequence[Tensor], *, with_colours: bool
) -> None:
    if isinstance(shown.pictures, Tensor):
        assert shown.rows is not None
        for view, out in zip(drawn, views, strict=True):
            photometry = view.photometry if with_colours else None
            numba_kernel.render(shown.pictures, shown.rows, view.boxes, view.flips, photometry, out)
        return
    first = np.zeros(1, dtype=np.int64)
    for row, picture in enumerate(shown.pictures):
        one, pixels = slice(row, row + 1), picture.pixels[None]
        for view, out in zip(drawn, views, strict=True):  # while the picture is in the cache
            boxes = (view.boxes[one] / picture.reduction).astype(np.float32)
            photometry = view.photometry[one] if with_colours else None
            numba_kernel.render(pixels, first, boxes, view.flips[one], photometry, out[one])


def _render_plainly(shown: Shown, drawn: Sequence[_Drawn], views: Sequence[Tensor]) -> None:
    for row in range(len(views[0])):
        if isinstance(shown.pictures, Tensor):
            assert shown.rows is not None
            picture = shown.pictures[int(shown.rows[row])]
        else:
            picture = shown.pictures[row].pixels
        for (group, boxes, flips, photometry), out in zip(drawn, views, strict=True):
            out[row] = pillow_reference.render(
                picture, boxes[row], bool(flips[row]), photometry, row, group.size
            )
