"""Small re-encoded copies of pictures that live inside the page."""

import base64
import io
from dataclasses import dataclass
from functools import partial

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

    def index(self, name: str) -> int:
        """Return the position of a picture in the set, -1 for none."""
        return self._indices.get(name, self._indices.get(printable(name), -1))

    def tile(self, name: str) -> Tile:
        """Return the centre square of the picture called ``name``, as the backbone sees it."""
        index = self.index(name)
        if index < 0 or self.pictures is None:
            return Tile(name=printable(name), source=None)
        try:
            picture = self.pictures[index]
        except UnreadablePicture:
            return Tile(name=printable(name), source=None)
        return picture_tile(name, channels_last(picture), side=self.side, square=True)

    def jpeg(self, name: str) -> bytes | None:
        """Return a JPEG of the whole picture, at most ``side`` high and wide; None without it."""
        index = self.index(name)
        if index < 0 or self.pictures is None:
            return None
        try:
            image = picture_image(channels_last(self.pictures[index]))
        except UnreadablePicture:
            return None
        image.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        return _bytes_of(image, "JPEG")

    def square(self, name: str, *, side: int) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return the centre square in colour, with at most ``side`` pixels a side; None if none."""
        index = self.index(name)
        if index < 0 or self.pictures is None:
            return None
        # twice the side at least, of which the average is taken
        reduction = partial(_reduction, side=2 * side)
        try:
            pixels = channels_last(self.pictures.reduced(index, reduction).pixels)
        except UnreadablePicture:
            return None
        image = _centre_square(picture_image(pixels)).convert("RGB")
        image.thumbnail((side, side), Image.Resampling.BOX)
        return np.asarray(image)


def encoded(pictures: Pictures, index: int) -> bytes:
    """Return a picture as PNG, in its size."""
    return _bytes_of(picture_image(channels_last(pictures[index])), "PNG")


def channels_last(
    picture: UInt8[Tensor, "channels height width"],
) -> UInt8[np.ndarray, "height width channels"]:
    """Return the picture as an array for :func:`picture_tile`."""
    return picture.permute(1, 2, 0).cpu().numpy()


def picture_tile(
    name: str, picture: UInt8[np.ndarray, "height width channels"], *, side: int, square: bool
) -> Tile:
    """Return a tile whose longer side has at most ``side`` pixels.

    Pictures of 1 or 2 channels show the first as grey, pictures of more channels the first three.
    """
    image = picture_image(picture)
    if square:
        image = _centre_square(image)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    tiny = max(image.size) <= TINY
    return Tile(name=printable(name), source=data_address(image, lossless=tiny), tiny=tiny)


def picture_image(picture: UInt8[np.ndarray, "height width channels"]) -> Image.Image:
    """Return what is visible of a picture: the first three channels, or the first as grey."""
    # further channels may be anything, such as infrared
    pixels = picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _reduction(height: int, width: int, *, side: int) -> int:
    """Return by how much a picture can be reduced while its shorter side has ``side`` pixels."""
    return next((factor for factor in (8, 4, 2) if min(height, width) >= factor * side), 1)


def _bytes_of(image: Image.Image, kind: str) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format=kind)
    return encoded.getvalue()


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def data_address(image: Image.Image, *, lossless: bool, quality: int = 82) -> str:
    """Return a picture as WebP in an address."""
    encoded = io.BytesIO()
    # Without loss, quality is effort: the least is 20 times as fast and hardly larger.
    effort = {"lossless": True, "quality": 0, "method": 0} if lossless else {"quality": quality}
    image.save(encoded, format="WEBP", **effort)
    return "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
