"""Small re-encoded copies of pictures that live inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from swav.data.sources.decode import UnreadablePicture
from swav.data.sources.pictures import Pictures
from swav.report.wording import printable

TINY = 48
"""Pictures up to this side are kept without loss and shown with square pixels."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture on the page: its name, and its copy unless there is none to be had."""

    name: str
    source: str | None
    """A ``data:`` address."""
    tiny: bool = False


class Album:
    """The pictures of a run by name."""

    def __init__(self, pictures: Pictures | None, *, side: int = 112) -> None:
        """Look names up in ``pictures``; without it, tiles have names only."""
        self.pictures = pictures
        self.side = side
        names = pictures.names if pictures is not None else ()
        self._indices = {name: index for index, name in enumerate(names)}
        # Files spell out what cannot be encoded, so a name may come back as it is shown.
        spelt = {printable(name): index for name, index in self._indices.items()}
        self._indices = spelt | self._indices

    def tile(self, name: str) -> Tile:
        """Return the centre square of the picture called ``name``, as the backbone sees it."""
        index = self._indices.get(name, self._indices.get(printable(name)))
        if index is None or self.pictures is None:
            return Tile(name=printable(name), source=None)
        try:
            picture = self.pictures[index]
        except UnreadablePicture:
            return Tile(name=printable(name), source=None)
        return picture_tile(name, channels_last(picture), side=self.side, square=True)

    def jpeg(self, name: str) -> bytes | None:
        """Return a JPEG of the whole picture, at most ``side`` high and wide; None without it."""
        index = self._indices.get(name)
        if index is None or self.pictures is None:
            return None
        try:
            image = _visible(channels_last(self.pictures[index]))
        except UnreadablePicture:
            return None
        image.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        return _bytes_of(image, "JPEG")


def encoded(pictures: Pictures, index: int) -> bytes:
    """Return a picture as PNG, in its size."""
    return _bytes_of(_visible(channels_last(pictures[index])), "PNG")


def channels_last(
    picture: UInt8[Tensor, "channels height width"],
) -> UInt8[np.ndarray, "height width channels"]:
    """Return the picture as an array for :func:`picture_tile`."""
    return picture.permute(1, 2, 0).cpu().numpy()


def picture_tile(
    name: str, picture: UInt8[np.ndarray, "height width channels"], *, side: int, square: bool
) -> Tile:
    """Return a tile whose longer side has at most ``side`` pixels."""
    image = _visible(picture)
    if square:
        image = _centre_square(image)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    tiny = max(image.size) <= TINY
    return Tile(name=printable(name), source=_data_address(image, lossless=tiny), tiny=tiny)


def _bytes_of(image: Image.Image, kind: str) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format=kind)
    return encoded.getvalue()


def _visible(picture: UInt8[np.ndarray, "height width channels"]) -> Image.Image:
    """Return the first channel as grey where there are 1 or 2, the first three where more."""
    # further channels may be anything, such as infrared
    pixels = picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _data_address(image: Image.Image, *, lossless: bool) -> str:
    encoded = io.BytesIO()
    # Without loss, quality is effort: the least is 20 times as fast and hardly larger.
    effort = {"lossless": True, "quality": 0, "method": 0} if lossless else {"quality": 82}
    image.save(encoded, format="WEBP", **effort)
    return "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
