"""Crop, resize, jitter, grey, blur and solarise in one compiled pass over each view.

The same operations, in the same order and from the same drawn numbers, as in ``pillow_reference``,
to the same whole numbers after the resize and after each change of colour: Pillow rounds a resized
pixel, cuts off what brightness, contrast and saturation leave behind the point, and knows 256 hues.
Within the resize and the blur nothing is rounded here. A view stays in the
processor's cache from its first operation to its last. Compiled by numba for the processor at hand,
on first use, and kept on the disk.

Pictures come as ``(planes, height, line)`` bytes: one plane of interleaved channels, or one plane
for each channel.
"""

import threading

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from swav.data.views import numba_passes
from swav.data.views.augment import BLUR_BOXES, ColourParams
from swav.data.views.numba_passes import compiled


def render(
    pictures: UInt8[Tensor, "images channels _ _"],
    rows: Int64[np.ndarray, " batch"],
    boxes: Float32[np.ndarray, "batch 4"],
    flips: Bool[np.ndarray, " batch"],
    colours: ColourParams | None,
    out: UInt8[Tensor, "batch channels height width"],
) -> None:
    """Write a view of each of the pictures at ``rows`` to ``out``.

    Args:
        pictures: of one size, channels first or last in memory.
        rows: positions in ``pictures``.
        boxes: top, left, height and width in pixels; need not be whole numbers.
        flips: which views are mirrored.
        colours: the colour parameters of each view; None changes no colour.
        out: receives the views.
    """
    count, channels, height, width = pictures.shape
    # decoders give channels last; taking them apart first would be another pass over the memory
    if channels == 1 or pictures.permute(0, 2, 3, 1).is_contiguous():
        lines = pictures.permute(0, 2, 3, 1).reshape(count, 1, height, width * channels).numpy()
        step = channels
    else:
        lines, step = pictures.contiguous().numpy(), 1
    if colours is None:
        numba_passes.render_crops(lines, step, rows, boxes, flips, _scratch(out, 0), out.numpy())
        return
    radius = np.where(colours.blur, colours.blur_radius, np.float32(0))
    where = (lines, step, rows, boxes, flips)
    jitter = (colours.jitter, colours.order, colours.factors)
    scratch = _scratch(out, float(radius.max()))
    numba_passes.render(
        *where, *jitter, colours.grey, radius, colours.solarise, scratch, out.numpy()
    )


# for each thread: the kernel runs without the interpreter's lock
_memory = threading.local()


def _scratch(out: UInt8[Tensor, "batch channels height width"], radius: float) -> np.ndarray:
    """Return memory for a view in floats and for its blur; kept, for new pages cost much time."""
    _, channels, height, width = out.shape
    # none of the boxes reaches beyond int(radius) + 1 pixels on either side
    beyond = 2 * BLUR_BOXES * (int(radius) + 1)
    size = channels * height * width + 2 * (height + beyond) * (width + beyond)
    memory: np.ndarray | None = getattr(_memory, "values", None)
    if memory is None or memory.size < size:
        memory = _memory.values = np.empty(size, np.float32)
    return memory


def normalise(
    views: UInt8[Tensor, "batch channels height width"],
    scale: Float32[np.ndarray, " channels"],
    shift: Float32[np.ndarray, " channels"],
) -> Float32[Tensor, "batch channels height width"]:
    """Return ``views * scale + shift`` for each channel, in one pass over the memory."""
    out = torch.empty(views.shape)
    pixels = views.shape[2] * views.shape[3]
    lines = views.reshape(-1, pixels).numpy(), out.view(-1, pixels).numpy()
    _normalise(*lines, scale, shift)
    return out


@compiled
def _normalise(lines: np.ndarray, out: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
    for i in range(len(lines)):
        channel = i % len(scale)
        _scale_and_shift(lines[i], scale[channel], shift[channel], out[i])


@compiled
def _scale_and_shift(source: np.ndarray, scale: float, shift: float, out: np.ndarray) -> None:
    for x in range(out.size):
        out[x] = np.float32(source[x]) * scale + shift
