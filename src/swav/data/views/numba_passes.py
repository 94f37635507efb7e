"""The compiled loops of ``numba_kernel``: what happens to one view, from its box to its bytes.

All that calls each other stands in this one file: numba's cache asks for the date of the file of
the caller alone, so that a change of a function in another file would not be seen (numba's manual,
"Cache limitations"). Inner loops are functions of one-dimensional arrays, because a slice in an
inner loop costs a count of references (docs/decisions/0015).
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from swav.data.views.augment import blur_kernel

_f32 = np.float32
# rows resized together, whose weights are loaded once: 0.32 ms a view of 224 pixels, where one row
# at a time took 0.54 and eight 0.42 (docs/log.md)
_BLOCK = 4


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile, and keep the result where the package or the user's cache can be written.

    Products may be fused with sums, but sums are never reordered (``reassoc``): LLVM then chose
    another order for code that it had just compiled than for the same code from the cache, so that
    the first run on a machine and all later ones saw different bytes. It was not faster either.
    """
    function = inspect.unwrap(function)  # of a checker of types, which numba cannot compile
    compile_ = partial(njit, nogil=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})
    try:
        kernel: Callable[..., Any] = compile_(cache=True)(function)
    except RuntimeError:  # no folder can be written
        kernel = compile_()(function)
    return kernel


@compiled
def render_crops(pictures, step, rows, boxes, flips, scratch, out):
    """Write a view of each picture, cropped and resized."""
    view = scratch[: out[0].size].reshape(out.shape[1:])
    for i in range(len(rows)):
        _resize(pictures[rows[i]], step, boxes[i], flips[i], view)
        _to_bytes(view.reshape(-1), out[i].reshape(-1))


@compiled
def render(
    pictures, step, rows, boxes, flips, jitter, order, factors, grey, radius, solarise, scratch, out
):
    """Write a view of each picture with its colours changed; ``radius`` is 0 without a blur."""
    view, rest = scratch[: out[0].size].reshape(out.shape[1:]), scratch[out[0].size :]
    for i in range(len(rows)):
        _resize(pictures[rows[i]], step, boxes[i], flips[i], view)
        _round(view.reshape(-1))
        if jitter[i]:
            _jitter(view, order[i], factors[i])
        if grey[i] and len(view) == 3:
            _grey(view[0].reshape(-1), view[1].reshape(-1), view[2].reshape(-1))
        if radius[i] > 0:
            _blur(view, _blur_kernel(radius[i]), rest)
        if solarise[i]:
            _solarise(view.reshape(-1))
        _to_bytes(view.reshape(-1), out[i].reshape(-1))


@compiled
def _triangle(start, length, size, flip):
    """Return for every output pixel its first source pixel, their number and their weights.

    A triangle as wide as an output pixel, at least one source pixel, inside the box only.
    """
    scale = length / size
    support = max(scale, 1.0)
    # Pillow crops before it resizes: no pixel outside of the box has a weight
    low, high = int(np.floor(start)), int(np.ceil(start + length))
    first = np.empty(size, np.int64)
    count = np.empty(size, np.int64)
    weights = np.empty((size, int(2 * support) + 3), np.float32)
    for i in range(size):
        centre = start + (i + 0.5) * scale
        # rounded as in Pillow's precompute_coeffs, or a border pixel more would count
        begin = max(int(centre - support + 0.5), low)
        end = min(int(centre + support + 0.5), high)
        target = size - 1 - i if flip else i
        first[target], count[target] = begin, end - begin
        total = 0.0
        for k in range(begin, end):
            weight = max(1.0 - abs(k + 0.5 - centre) / support, 0.0)
            weights[target, k - begin] = weight
            total += weight
        for k in range(end - begin):
            weights[target, k] /= total
    return first, count, weights


@compiled
def _resize(picture, step, box, flip, view):
    planes = len(picture)
    _, height, width = view.shape
    top, tall, many_rows = _triangle(box[0], box[2], height, False)
    left, wide, many_columns = _triangle(box[1], box[3], width, flip)
    start, end = left.min(), (left + wide).max()
    left -= start
    # rows before columns: LLVM vectorises rows as they are, and the flip costs nothing
    lines = np.empty((_BLOCK, (end - start) * step), np.float32)
    for plane in range(planes):
        for y in range(0, height, _BLOCK):
            for offset in range(_BLOCK):
                # the last block repeats the last row, so that no loop for a rest is needed
                row = min(y + offset, height - 1)
                line, weights, begin = lines[offset], many_rows[row], top[row]
                # the first row writes: setting the line to 0 would be a pass of its own
                _scaled(picture[plane, begin, start * step : end * step], weights[0], line)
                for k in range(1, tall[row]):
                    source = picture[plane, begin + k, start * step : end * step]
                    _add_scaled(source, weights[k], line)
            # the weights of a column are loaded once for three channels (docs/decisions/0015)
            if step == 3:
                _columns_of_three(lines, left, wide, many_columns, view, y)
            else:
                for channel in range(step):
                    target = view[plane if step == 1 else channel]
                    _columns(lines, step, channel, left, wide, many_columns, target, y)


@compiled
def _scaled(source, weight, line):
    for x in range(line.size):
        line[x] = weight * _f32(source[x])


@compiled
def _add_scaled(source, weight, line):
    for x in range(line.size):
        line[x] += weight * _f32(source[x])


@compiled
def _columns(lines, step, channel, left, wide, weights, target, y):
    """Resample four lines of one channel along the other axis, into rows ``y`` and on."""
    height, width = target.shape
    y1, y2, y3 = min(y + 1, height - 1), min(y + 2, height - 1), min(y + 3, height - 1)
    line0, line1, line2, line3 = lines[0], lines[1], lines[2], lines[3]
    for x in range(width):
        # unsigned, as numba tests a signed index for counting from the end
        at, stride = np.uint64(left[x] * step + channel), np.uint64(step)
        s0 = s1 = s2 = s3 = _f32(0)
        for k in range(wide[x]):
            weight = weights[x, k]
            s0 += weight * line0[at]
            s1 += weight * line1[at]
            s2 += weight * line2[at]
            s3 += weight * line3[at]
            at += stride
        target[y, x], target[y1, x], target[y2, x], target[y3, x] = s0, s1, s2, s3


@compiled
def _columns_of_three(lines, left, wide, weights, view, y):
    """Do what ``_columns`` does for three interleaved channels at once: their weights are one."""
    _, height, width = view.shape
    y1, y2, y3 = min(y + 1, height - 1), min(y + 2, height - 1), min(y + 3, height - 1)
    line0, line1, line2, line3 = lines[0], lines[1], lines[2], lines[3]
    red, green, blue = view[0], view[1], view[2]
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for x in range(width):
        at = np.uint64(left[x] * 3)
        r0 = g0 = b0 = r1 = g1 = b1 = _f32(0)
        r2 = g2 = b2 = r3 = g3 = b3 = _f32(0)
        for k in range(wide[x]):
            weight = weights[x, k]
            r0 += weight * line0[at]
            g0 += weight * line0[at + one]
            b0 += weight * line0[at + two]
            r1 += weight * line1[at]
            g1 += weight * line1[at + one]
            b1 += weight * line1[at + two]
            r2 += weight * line2[at]
            g2 += weight * line2[at + one]
            b2 += weight * line2[at + two]
            r3 += weight * line3[at]
            g3 += weight * line3[at + one]
            b3 += weight * line3[at + two]
            at += three
        red[y, x], green[y, x], blue[y, x] = r0, g0, b0
        red[y1, x], green[y1, x], blue[y1, x] = r1, g1, b1
        red[y2, x], green[y2, x], blue[y2, x] = r2, g2, b2
        red[y3, x], green[y3, x], blue[y3, x] = r3, g3, b3


@compiled
def _jitter(view, order, factors):
    """Brightness (0), contrast (1), saturation (2) and hue (3), in the drawn order."""
    coloured = len(view) == 3
    for turn in range(4):
        operation = order[turn]
        factor = factors[operation]
        if operation == 0:
            _brightness(view.reshape(-1), factor)
        elif operation == 1:
            _contrast(view, factor)
        elif coloured:
            red, green, blue = view[0].reshape(-1), view[1].reshape(-1), view[2].reshape(-1)
            if operation == 2:
                _saturation(red, green, blue, factor)
            elif factor != 0:
                _hue(red, green, blue, factor)


@compiled
def _clipped(value):
    return min(max(value, _f32(0)), _f32(255))


@compiled
def _rounded(value):
    return np.floor(value + _f32(0.5))


@compiled
def _round(values):
    for x in range(values.size):  # not where they are made: there it cost half as much again
        values[x] = _rounded(values[x])


@compiled
def _blended(start, value, factor):
    """Return the whole number that Pillow's blend leaves: it rounds down."""
    return np.floor(_clipped(start + factor * (value - start)))


@compiled
def _luma(red, green, blue):
    return _rounded(_f32(0.299) * red + _f32(0.587) * green + _f32(0.114) * blue)


@compiled
def _brightness(values, factor):
    for x in range(values.size):
        values[x] = _blended(_f32(0), values[x], factor)


@compiled
def _contrast(view, factor):
    """Blend with the mean grey value."""
    total = _f32(0)
    if len(view) == 3:
        red, green, blue = view[0].reshape(-1), view[1].reshape(-1), view[2].reshape(-1)
        for x in range(red.size):
            total += _luma(red[x], green[x], blue[x])
        mean = _rounded(total / _f32(red.size))  # whole, as in Pillow's ImageEnhance.Contrast
    else:
        values = view.reshape(-1)
        for x in range(values.size):
            total += values[x]
        mean = _rounded(total / _f32(values.size))
    values = view.reshape(-1)
    for x in range(values.size):
        values[x] = _blended(mean, values[x], factor)


@compiled
def _saturation(red, green, blue, factor):
    """Blend with the grey version."""
    for x in range(red.size):
        grey = _luma(red[x], green[x], blue[x])
        red[x] = _blended(grey, red[x], factor)
        green[x] = _blended(grey, green[x], factor)
        blue[x] = _blended(grey, blue[x], factor)


@compiled
def _hue(red, green, blue, shift):
    """Turn the hue of HSV (the closed form of HSV to RGB), of which each is a byte to Pillow."""
    one, two, four, six, top = _f32(1), _f32(2), _f32(4), _f32(6), _f32(255)
    # torchvision adds a byte of the shift to Pillow's byte of the hue, and it wraps
    turn = _f32(int(shift * top) % 256)
    for x in range(red.size):
        r, g, b = red[x], green[x], blue[x]
        value = max(max(r, g), b)
        chroma = value - min(min(r, g), b)
        scale = one / max(chroma, _f32(1e-6))  # grey has no hue: anything finite does
        sextant = (r - g) * scale + four
        sextant = (b - r) * scale + two if value == g else sextant
        sextant = (g - b) * scale if value == r else sextant
        sextant = sextant + six if sextant < _f32(0) else sextant
        # Pillow keeps hue and saturation as bytes, and cuts off what is behind the point
        hue = np.floor(sextant * (top / six)) + turn
        hue = hue - _f32(256) if hue > top else hue
        turned = hue * (six / top)
        saturation = np.floor(chroma * top / max(value, one))
        chroma = value * saturation * (one / top)
        red[x] = _rounded(value - chroma * _ramp(turned + _f32(5)))
        green[x] = _rounded(value - chroma * _ramp(turned + _f32(3)))
        blue[x] = _rounded(value - chroma * _ramp(turned + one))


@compiled
def _ramp(angle):
    """Return how far a channel lies below the value; ``angle`` is in sextants, from 0 to 11."""
    zero, six = _f32(0), _f32(6)
    angle = angle - six if angle >= six else angle
    return min(max(min(angle, _f32(4) - angle), zero), _f32(1))


@compiled
def _grey(red, green, blue):
    for x in range(red.size):
        grey = _luma(red[x], green[x], blue[x])
        red[x] = grey
        green[x] = grey
        blue[x] = grey


# of another file: after a change there, remove the compiled files of __pycache__ (see above)
_blur_kernel = compiled(blur_kernel)


@compiled
def _blur(view, kernel, scratch):
    """Blur along both axes; the border pixel stands for all beyond it."""
    channels, height, width = view.shape
    reach = len(kernel) - 1
    stride = width + 2 * reach
    # padded once, so that each direction is one loop over one run of pixels: 0.32 ms where row by
    # row took 0.48 (docs/log.md)
    flat, size = scratch[: (height + 2 * reach) * stride], height * stride
    padded, middle = flat.reshape(-1, stride), scratch[flat.size : flat.size + size]
    for channel in range(channels):
        plane = view[channel]
        for y in range(len(padded)):
            source, line = plane[min(max(y - reach, 0), height - 1)], padded[y]
            _copy(source, line[reach : reach + width])
            for x in range(reach):
                line[x], line[stride - 1 - x] = source[0], source[width - 1]
        # down the rows, the plane is one run of pixels shifted by lines
        _convolve(flat, kernel, stride, middle)
        for y in range(height):
            _convolve(middle[y * stride : (y + 1) * stride], kernel, 1, plane[y])


@compiled
def _convolve(source, kernel, stride, out):
    """Write the sum over taps k of ``kernel[k]`` times the source k strides before and after.

    Three pairs of taps in a pass over the memory: a blur by three boxes has a multiple of them.
    """
    middle = (len(kernel) - 1) * stride
    centre, weight = source[middle : middle + out.size], kernel[0]
    for k in range(1, len(kernel), 3):
        near, half, far = kernel[k], kernel[k + 1], kernel[k + 2]
        above1, below1 = _pair(source, middle, k * stride, out.size)
        above2, below2 = _pair(source, middle, (k + 1) * stride, out.size)
        above3, below3 = _pair(source, middle, (k + 2) * stride, out.size)
        if k == 1:
            for x in range(out.size):
                out[x] = weight * centre[x] + near * (above1[x] + below1[x])
                out[x] += half * (above2[x] + below2[x]) + far * (above3[x] + below3[x])
        else:
            for x in range(out.size):
                out[x] += near * (above1[x] + below1[x])
                out[x] += half * (above2[x] + below2[x]) + far * (above3[x] + below3[x])


@compiled
def _pair(source, middle, distance, size):
    start, end = middle - distance, middle + distance
    return source[start : start + size], source[end : end + size]


@compiled
def _copy(source, out):
    for x in range(out.size):  # ten times as fast as ``out[:] = source`` in numba 0.68
        out[x] = source[x]


@compiled
def _solarise(values):
    """Invert the upper half of the values."""
    for x in range(values.size):
        # torchvision's threshold is 128; values after a blur are not whole
        values[x] = _f32(255) - values[x] if values[x] >= _f32(127.5) else values[x]


@compiled
def _to_bytes(values, out):
    for x in range(values.size):
        # clipped first: a cast of what lies outside of a byte is undefined
        out[x] = np.uint8(_clipped(values[x]) + _f32(0.5))
