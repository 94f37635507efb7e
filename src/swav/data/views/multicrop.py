"""From decoded pictures to the views of multi-crop, by one of three pipelines.

Workers make ``ByteViews``: cropped and resized, and with the pipelines ``fused`` and ``pillow``
also jittered, greyed, blurred and solarised. ``to_batch`` turns them into a ``Batch`` on the device
of the network: it normalises, after the changes of colour when the pipeline is ``device``. All
pipelines draw the same parameters from the same counters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision.transforms.functional import pil_to_tensor

from swav.data import random
from swav.data.batch import Batch
from swav.data.sources.decode import Decoded
from swav.data.views import augment, crops, numba_kernel, pillow_reference
from swav.data.views.augment import ColourParams
from swav.data.views.crops import CropGroup, Pipeline, ViewsConfig

REDUCTIONS = (8, 4, 2)  # what libjpeg can shrink by while it decodes


class ByteViews(NamedTuple):
    """Views as bytes, target views first, and what is still to be done to them."""

    views: tuple[UInt8[Tensor, "batch channels _ _"], ...]
    colours: tuple[ColourParams, ...]
    """One for each view, to be applied on the device; empty if that is done."""
    num_targets: int
    indices: Int64[Tensor, " batch"]


class PictureBatch(NamedTuple):
    """The decoded pictures of a batch: rows of a set of one size, or one after the other."""

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
        return len(self.pixels(0))

    def pixels(self, row: int) -> UInt8[Tensor, "channels _ _"]:
        """Return one picture of the batch."""
        if isinstance(self.pictures, Tensor):
            assert self.rows is not None
            return self.pictures[int(self.rows[row])]
        return self.pictures[row].pixels


@dataclass(frozen=True)
class MultiCrop:
    """The views of pictures for any loop: ``MultiCrop(config)(pictures, indices, epoch=epoch)``.

    What is drawn depends on the seed, the epoch, and the index of the picture alone, so workers
    need no random state of their own.
    """

    config: ViewsConfig
    seed: int = 0

    def __call__(
        self,
        pictures: Sequence[Image.Image] | Sequence[UInt8[Tensor, "channels _ _"]],
        indices: Sequence[int] | Int64[np.ndarray, " batch"],
        *,
        epoch: int,
    ) -> Batch:
        """Return the normalised views of some pictures, target views first.

        Args:
            pictures: of Pillow, in as many channels as ``config.mean`` has, or bytes.
            indices: of the pictures in their set.
            epoch: which pass over the set this is.
        """
        pixels = [
            pil_to_tensor(picture) if isinstance(picture, Image.Image) else picture
            for picture in pictures
        ]
        decoded = [Decoded(each, (each.shape[1], each.shape[2])) for each in pixels]
        made = make_byte_views(
            PictureBatch(decoded),
            np.ascontiguousarray(indices, dtype=np.int64),
            self.config,
            seed=self.seed,
            epoch=epoch,
            pipeline=self.config.pipeline,
        )
        return to_batch(made, self.config)


def make_byte_views(
    batch: PictureBatch,
    indices: Int64[np.ndarray, " batch"],
    config: ViewsConfig,
    *,
    seed: int,
    epoch: int,
    pipeline: Pipeline = "fused",
    partners: PictureBatch | None = None,
) -> ByteViews:
    """Return the views of some pictures as bytes.

    Args:
        batch: the pictures.
        indices: positions in the set; they name the pictures to the random draws.
        config: which views.
        seed: of the run.
        epoch: of the run.
        pipeline: what makes the views.
        partners: of each picture another one, from which every second view (the second target,
            every second small one) is taken instead.
    """
    sources = (batch,) if partners is None else (batch, partners)
    params = _draw_params(config, sources, indices, seed=seed, epoch=epoch)
    # one tensor a view from the start: nothing is stacked or copied at the end
    views = tuple(_empty(len(indices), batch.num_channels, *view.group.size) for view in params)
    # the second target must be of the partner, so sources take turns over all views
    for first, source in enumerate(sources):
        own = slice(first, None, len(sources))
        if pipeline == "pillow":
            _render_by_pillow(source, params[own], views[own])
        else:
            _render(source, params[own], views[own], coloured=pipeline == "fused")
    colours = tuple(view.colours for view in params) if pipeline == "device" else ()
    return ByteViews(views, colours, config.num_targets, torch.from_numpy(indices))


def to_batch(
    byte_views: ByteViews, config: ViewsConfig, device: torch.device | None = None
) -> Batch:
    """Return the views normalised on the device, after what is left of their augmentation."""
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    scale, shift = 1 / std, -mean / std  # one product and one sum a value
    num_targets, indices = byte_views.num_targets, byte_views.indices
    if not byte_views.colours and (device is None or device.type == "cpu"):
        views = tuple(numba_kernel.normalise(view, scale / 255, shift) for view in byte_views.views)
        return Batch(views, num_targets, indices)
    scales, shifts = (
        torch.from_numpy(values)[:, None, None].to(device) for values in (scale, shift)
    )
    floats: list[Tensor] = []
    for number, pixels in enumerate(byte_views.views):
        # bytes cross to the device: a quarter of what floats take (docs/decisions/0015)
        view = pixels.to(device, non_blocking=True).float().div_(255)
        if byte_views.colours:
            view = augment.augment(view, byte_views.colours[number])
        floats.append(view.mul_(scales).add_(shifts))
    return Batch(tuple(floats), num_targets, indices.to(device, non_blocking=True))


def reduction(config: ViewsConfig, height: int, width: int) -> int:
    """Return by what whole factor a picture may be shrunk while it is decoded.

    The smallest box that any group can draw of it still has a pixel for each pixel of the view.
    """
    # no box may have fewer pixels than its view: only shrinking is the same from a smaller picture
    # (within 1.0 of 255 on average at the edge, docs/decisions/0015)
    per_pixel = float("inf")
    for group in config.groups:
        area = group.scale[0] * height * width
        tall = min((area / group.ratio[1]) ** 0.5, height, width / group.ratio[1])
        wide = min((area * group.ratio[0]) ** 0.5, width, height * group.ratio[0])
        per_pixel = min(per_pixel, tall / group.size[0], wide / group.size[1])
    allowed = [factor for factor in REDUCTIONS if per_pixel >= factor]
    return max(allowed, default=1)


class _ViewParams(NamedTuple):
    """The parameters of one view of each picture of a batch."""

    group: CropGroup
    boxes: Float32[np.ndarray, "batch 4"]
    flips: Bool[np.ndarray, " batch"]
    colours: ColourParams


def _draw_params(
    config: ViewsConfig,
    sources: Sequence[PictureBatch],
    indices: Int64[np.ndarray, " batch"],
    *,
    seed: int,
    epoch: int,
) -> list[_ViewParams]:
    # always as many draws: a setting that is switched off moves no other
    draw = partial(random.uniforms, seed=seed, epoch=epoch, indices=indices)
    groups = [group for group in config.groups for _ in range(group.count)]
    params = []
    for view, group in enumerate(groups):
        uniforms = draw(view=view, num_draws=crops.NUM_DRAWS + augment.NUM_DRAWS)
        sizes = sources[view % len(sources)].sizes
        boxes, flips = crops.draw_boxes(group, sizes, uniforms[:, : crops.NUM_DRAWS])
        colours = augment.draw_colour_params(group.augment, uniforms[:, crops.NUM_DRAWS :])
        params.append(_ViewParams(group, boxes.astype(np.float32), flips, colours))
    return params


def _empty(
    batch: int, channels: int, height: int, width: int
) -> UInt8[Tensor, "batch channels height width"]:
    """Return memory for a view; of a worker, such as the trainer reads without another copy."""
    view = torch.empty(batch, channels, height, width, dtype=torch.uint8)
    return view if get_worker_info() is None else view.share_memory_()  # type: ignore[no-untyped-call]


def _render(
    batch: PictureBatch, params: Sequence[_ViewParams], views: Sequence[Tensor], *, coloured: bool
) -> None:
    if isinstance(batch.pictures, Tensor):
        assert batch.rows is not None
        for view, out in zip(params, views, strict=True):
            colours = view.colours if coloured else None
            numba_kernel.render(batch.pictures, batch.rows, view.boxes, view.flips, colours, out)
        return
    first = np.zeros(1, dtype=np.int64)
    for row, picture in enumerate(batch.pictures):
        one, pixels = slice(row, row + 1), picture.pixels[None]
        for view, out in zip(params, views, strict=True):  # while the picture is in the cache
            # drawn in pixels of the whole picture, so that a reduction moves no box
            boxes = (view.boxes[one] / picture.reduction).astype(np.float32)
            colours = view.colours[one] if coloured else None
            numba_kernel.render(pixels, first, boxes, view.flips[one], colours, out[one])


def _render_by_pillow(
    batch: PictureBatch, params: Sequence[_ViewParams], views: Sequence[Tensor]
) -> None:
    for row in range(len(views[0])):
        picture = batch.pixels(row)
        for (group, boxes, flips, colours), out in zip(params, views, strict=True):
            out[row] = pillow_reference.render(
                picture, boxes[row], bool(flips[row]), colours, row, group.size
            )
