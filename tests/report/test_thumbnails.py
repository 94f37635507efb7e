"""Tiles show pictures of any number of channels, small enough for a page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from swav.report.thumbnails import Album, Tile, picture_tile


def decoded(tile: Tile) -> np.ndarray:
    assert tile.source is not None
    picture = Image.open(io.BytesIO(base64.b64decode(tile.source.split(",")[1])))
    assert not picture.info.get("exif")
    return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_first_channels_are_shown(channels: int) -> None:
    picture = np.zeros((24, 30, channels), dtype=np.uint8)
    picture += np.arange(50, 50 + 10 * channels, 10, dtype=np.uint8)
    expected = [50, 60, 70] if channels >= 3 else [50, 50, 50]
    pixels = decoded(picture_tile("a", picture, side=64, square=False))
    assert pixels.shape == (24, 30, 3)
    assert abs(pixels - expected).max() <= 2


def test_the_middle_of_a_large_picture_is_shown_small() -> None:
    picture = np.zeros((300, 900, 3), dtype=np.uint8)
    picture[:, 300:600] = 200
    tile = picture_tile("a", picture, side=112, square=True)
    pixels = decoded(tile)
    assert pixels.shape == (112, 112, 3)
    assert abs(pixels - 200).max() <= 4
    assert not tile.tiny


def test_small_pictures_are_kept_to_the_bit() -> None:
    picture = np.random.default_rng(0).integers(0, 255, size=(32, 32, 3), dtype=np.uint8)
    tile = picture_tile("a", picture, side=112, square=True)
    assert tile.tiny
    assert (decoded(tile) == picture).all()


def test_an_album_without_pictures_has_names() -> None:
    assert Album(None).tile("a\nb") == Tile(name="a\\nb", source=None)
