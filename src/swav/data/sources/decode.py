"""One function from an encoded picture, whatever its mode or depth, to upright 8-bit channels."""

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened at all: nothing that can start another program or carries a language."""
# the decoded picture is bounded by its header: 14,000 x 14,000 pixels of one bit fit in 24 KB of
# PNG
MAX_PIXELS = 64 * 2**20
MAX_SIDE = 2**15
# when the shorter side is resized to 224 pixels, the other has 44,800 at most
MAX_ASPECT = 200
MAX_FILE_BYTES = 256 * 2**20

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_TAIL = 64  # bytes in which a JPEG that is whole has its end marker
_EXIF_KEYS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")

Opened = io.BufferedReader | io.BytesIO
Source = str | Path | bytes | Opened
"""A file by its path, its bytes, or the open file."""


Reduction = Callable[[int, int], int]
"""From height and width of a picture to the whole factor that decoding may shrink it by."""
_REDUCED = {  # their names say grey, but a flag of a colour may join them
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class Decoded(NamedTuple):
    """A picture, perhaps at a fraction of its size."""

    pixels: UInt8[Tensor, "channels _ _"]
    size: tuple[int, int]
    """Height and width of the whole picture."""
    reduction: int = 1
    """Pixels of the whole picture along each side of a pixel."""


class UnreadablePicture(ValueError):
    """A picture that cannot be used, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name!r} is unreadable: {self.reason}"


def decode(
    source: Source, *, channels: int = 3, name: str = ""
) -> UInt8[Tensor, "channels height width"]:
    """Return the picture upright, 8 bits a channel: grey for one channel, RGB for three.

    Transparent pixels show white, 16 bits keep their upper 8, of an animation the first frame is
    taken. Any other number of channels must be what the file holds (RGBA: 4, grey and alpha: 2).

    Raises:
        UnreadablePicture: With a reason, whatever is wrong with the file.
    """
    with quiet_pillow():
        return decode_quietly(source, channels=channels, name=name)


def decode_quietly(
    source: Source, *, channels: int, name: str = ""
) -> UInt8[Tensor, "channels height width"]:
    """Decode as ``decode`` does, for many threads: the caller holds ``quiet_pillow``."""
    return decode_reduced(source, lambda *_: 1, channels=channels, name=name).pixels


def decode_reduced(
    source: Source, reduction: Reduction | None, *, channels: int, name: str = ""
) -> Decoded:
    """Decode as ``decode_quietly`` does, but a JPEG as small as ``reduction`` allows.

    Common JPEGs are read by OpenCV: the same pixels as Pillow's (both use libjpeg-turbo), sooner.
    Without a ``reduction`` Pillow reads everything.
    """
    with _opened(source, name, whole=True) as image:
        size = _upright_size(image)
        # OpenCV takes three quarters of Pillow's time for the same pixels (docs/decisions/0015)
        if reduction is not None:
            factor = reduction(*size)
            values = _common_jpeg(image, channels, factor)
            if values is not None:
                return Decoded(torch.from_numpy(values).permute(2, 0, 1), size, factor)
        return Decoded(from_image(image, channels=channels), size)


def read_size(source: Source, *, name: str = "") -> tuple[int, int]:
    """Return height and width of the upright picture, from its header only."""
    with quiet_pillow(), _opened(source, name) as image:
        return _upright_size(image)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings about odd files to ourselves. Enter it in one thread only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # a bomb is an error: between its limit and twice of it Pillow only warns
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def from_image(image: Image.Image, *, channels: int) -> UInt8[Tensor, "channels height width"]:
    """Return an open Pillow image as ``decode`` does.

    Raises:
        ValueError: If its bands or its range of values do not fit.
    """
    # before the orientation: a PNG may hold it after its pixels
    image.load()
    turn = _ORIENTATIONS.get(_orientation(image))
    image = _eight_bit(image if turn is None else image.transpose(turn))
    if channels in (1, 3):
        wanted = "L" if channels == 1 else "RGB"
        # before the conversion, which would show the colours that transparent pixels happen to have
        image = _on_white(image)
        image = image if image.mode in ("1", "L", "RGB") else image.convert("RGB")
        values = np.asarray(image if image.mode == wanted else image.convert(wanted))
    else:
        # a palette is no channel of its own
        values = np.asarray(image.convert() if image.mode in ("P", "PA") else image)
    values = values[..., None] if values.ndim == 2 else values
    if values.shape[2] != channels:
        raise ValueError(f"it has {values.shape[2]} channels ({image.mode}), not {channels}")
    # Pillow's memory is not to be written to, and torch warns of that
    return torch.from_numpy(values.copy()).permute(2, 0, 1)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    # Pillow turns a TIFF by itself, and already says its size as if turned
    sideways = image.format != "TIFF" and _orientation(image) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def _common_jpeg(
    image: Image.Image, channels: int, factor: int
) -> UInt8[np.ndarray, "height width channels"] | None:
    """Return the upright pixels of a whole JPEG that holds what is asked for, else None.

    One that is cut short is left to Pillow, which says so.
    """
    # CMYK and what is stored in other colours than asked for is converted by Pillow, as everywhere
    # else
    if image.format != "JPEG" or (image.mode, channels) not in (("RGB", 3), ("L", 1)):
        return None
    file = vars(image).get("fp")
    content = file.getvalue() if isinstance(file, io.BytesIO) else b""
    if b"\xff\xd9" not in content[-_TAIL:]:
        return None
    colour = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    # turned below, by the same reading of the metadata as every other format
    flags = colour | _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if values is None:
        return None
    turn = _ORIENTATIONS.get(_orientation(image))
    if turn is not None:
        values = np.array(Image.fromarray(values).transpose(turn))
    return values.reshape(*values.shape[:2], channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring whole numbers of 16 bits and floats to 8 bits; leave the other modes."""
    if image.mode == "F":
        return Image.fromarray(floats_to_bytes(np.asarray(image)))
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values from {values.min()} to {values.max()} are not of 16 bits")
    # Pillow's own conversion cuts at 255, which leaves nearly all of a picture white
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def floats_to_bytes(
    values: Shaped[np.ndarray, "*shape"], *, unit: bool | None = None
) -> UInt8[np.ndarray, "*shape"]:
    """Return floats of 0..1 (``unit``) or 0..255 as bytes; ``None`` decides by the largest.

    Raises:
        ValueError: If a value lies outside of the range or is not finite.
    """
    low, high = float(values.min()), float(values.max())
    # a picture of 0..255 whose values are all 0 or 1 is black anyway
    unit = high <= 1 if unit is None else unit
    limit = 1 if unit else 255
    # in this form it is false for what is not a number, too
    if not (low >= 0 and high <= limit):
        raise ValueError(
            f"float values from {low:g} to {high:g}: they must lie in 0..1 or all in 0..255"
        )
    return np.rint(values * (255 / limit)).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    paper = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(paper, colours).convert("RGB")


def _orientation(image: Image.Image) -> int:
    # without a sign of metadata: getexif would decode a whole PNG to look for it
    if image.format != "TIFF" and not any(key in image.info for key in _EXIF_KEYS):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata of a picture that may be whole: it is shown as it is
        return 1


@contextmanager
def _opened(source: Source, name: str, *, whole: bool = False) -> Iterator[Image.Image]:
    """Open within the limits; anything that goes wrong until the end is an unreadable picture."""
    try:
        with _binary(source, whole) as file:
            try:
                with Image.open(file, formats=_formats()) as image:
                    _check_size(*image.size)
                    yield image
            except UnidentifiedImageError:
                raise ValueError(_unidentified(file)) from None
    except Exception as error:  # decoders raise anything on hostile bytes
        name = name or (str(source) if isinstance(source, str | Path) else "")
        raise UnreadablePicture(name, _reason(error)) from error


@contextmanager
def _binary(source: Source, whole: bool) -> Iterator[Opened]:
    if isinstance(source, bytes):
        if not source:
            raise ValueError("the file is empty")
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        with open_regular(source) as file:
            # many small reads of a file would pass the interpreter's lock between threads each time
            yield io.BytesIO(file.read()) if whole else file
    else:
        yield source


@contextmanager
def open_regular(path: str | Path) -> Iterator[Opened]:
    """Open a regular file; a pipe or a device, which could block for ever, is an error.

    Raises:
        ValueError: If it is empty, too large or not a regular file.
    """
    # a pipe without a writer would block here; the check comes after opening, as a name may change
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        check_regular(os.fstat(descriptor))
        yield file


def check_regular(status: os.stat_result) -> None:
    """Raise ``ValueError`` unless this is a regular file of a sensible size."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size == 0:
        raise ValueError("the file is empty")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"{status.st_size} bytes are above the limit of {MAX_FILE_BYTES}")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{width} x {height} pixels show nothing")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are above the limit of {MAX_PIXELS}")
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"{width} x {height}: a side is above the limit of {MAX_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{width} x {height}: narrower than the limit of 1:{MAX_ASPECT}")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    # Pillow may be built without some of them, AVIF above all
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _unidentified(file: Opened) -> str:
    file.seek(0)
    start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML), not a picture"
    if start.startswith(b"%!ps"):
        return "PostScript is not opened: save it as PNG"
    return f"not a whole picture in one of {', '.join(FORMATS)}"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more pixels than the limit of {MAX_PIXELS}"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    # without the path, which is named beside it
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
