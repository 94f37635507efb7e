"""Whatever the mode, depth or damage of a file: the right pixels, or a reason."""

import io
import os
import pickle
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from swav.data.sources.decode import UnreadablePicture, decode, read_size

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes, channels: int = 3) -> np.ndarray:
    """Decoded, height first."""
    return decode(content, channels=channels).permute(1, 2, 0).numpy()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_sixteen_bits_keep_their_upper_eight():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for kind in ("PNG", "TIFF"):
        decoded = pixels(encoded(Image.fromarray(ramp), kind), channels=1)[..., 0]
        np.testing.assert_array_equal(decoded, ramp // 256)
    assert decoded.mean() == 127.5


def test_sixteen_bit_colour_keeps_its_upper_eight():
    values = RNG.integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    np.testing.assert_array_equal(pixels(png(6, 4, 16, 2, rows)), values >> 8)


def turned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The stored rows and columns of a picture, by the table of the EXIF standard."""
    stored: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[::-1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[:, ::-1],
    }
    return np.ascontiguousarray(stored[orientation](upright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_comes_out_upright(orientation: int, kind: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(turned(COLOURS, orientation))
    content = encoded(picture, kind, exif=exif, lossless=True)
    np.testing.assert_array_equal(pixels(content), COLOURS)
    assert read_size(content) == (5, 7)


def test_transparent_pixels_show_white():
    alpha = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    expected = (COLOURS * (alpha / 255.0)) + 255 * (1 - alpha / 255.0)
    decoded = pixels(encoded(Image.fromarray(np.concatenate([COLOURS, alpha], axis=2))))
    np.testing.assert_allclose(decoded, expected, atol=1)
    grey = np.concatenate([COLOURS[..., :1], alpha], axis=2)
    decoded = pixels(encoded(Image.fromarray(grey, "LA")), channels=1)
    np.testing.assert_allclose(decoded, expected[..., :1], atol=1)


def test_a_transparent_colour_of_the_palette_or_the_header_shows_white():
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    decoded = pixels(encoded(palette, transparency=0))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[1, 2].tolist() == [40, 50, 60]
    keyed = Image.new("RGB", (3, 2), (1, 2, 3))
    keyed.putpixel((0, 0), (9, 9, 9))
    decoded = pixels(encoded(keyed, transparency=(9, 9, 9)))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[1, 2].tolist() == [1, 2, 3]


def test_ink_becomes_light():
    inks = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    decoded = pixels(encoded(Image.fromarray(inks, "CMYK"), "TIFF"))
    paper = 255.0 - inks
    np.testing.assert_allclose(decoded, paper[..., :3] * paper[..., 3:] / 255, atol=2)


def test_grey_and_colour_become_each_other():
    grey = COLOURS[..., 0]
    np.testing.assert_array_equal(
        pixels(encoded(Image.fromarray(grey))), np.stack([grey] * 3, axis=2)
    )
    luma = COLOURS @ np.array([0.299, 0.587, 0.114])
    decoded = pixels(encoded(Image.fromarray(COLOURS)), channels=1)[..., 0]
    np.testing.assert_allclose(decoded, luma, atol=1)
    bits = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(pixels(encoded(bits), channels=1)[..., 0], (grey > 127) * 255)


def test_floats_of_one_or_of_255():
    values = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)
    for scale in (1, 255):
        decoded = pixels(encoded(Image.fromarray(values * scale), "TIFF"), channels=1)[..., 0]
        np.testing.assert_allclose(decoded, values * 255, atol=0.51)
    with pytest.raises(UnreadablePicture, match=r"0 to 300.*0\.\.1 or all in 0\.\.255"):
        decode(encoded(Image.fromarray(values * 300), "TIFF"))
    values[0, 0] = np.nan
    with pytest.raises(UnreadablePicture, match="nan"):
        decode(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind: str):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(content) == [255, 0, 0]).all()


def test_as_many_channels_as_the_file_holds():
    values = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values)), channels=4), values)
    with pytest.raises(UnreadablePicture, match=r"3 channels \(RGB\), not 4"):
        decode(encoded(Image.fromarray(COLOURS)), channels=4)


def test_a_path_its_bytes_and_the_open_file_give_the_same(tmp_path: Path):
    content = encoded(Image.fromarray(COLOURS), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    by_path = decode(tmp_path / "a.jpg")
    assert torch.equal(by_path, decode(content))
    assert torch.equal(by_path, decode(io.BytesIO(content)))
    assert by_path.permute(1, 2, 0).is_contiguous()  # as decoders write it


def drawing() -> Image.Image:
    picture = Image.new("RGB", (64, 48), "white")
    ImageDraw.Draw(picture).ellipse((8, 8, 50, 40), fill="navy")
    return picture


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


JPEG, PNG = encoded(drawing(), "JPEG"), encoded(Image.fromarray(COLOURS))
BAD_FILES = {
    "empty": (b"", "empty"),
    "ten bytes": (JPEG[:10], "Truncated"),
    "half": (JPEG[: len(JPEG) * 7 // 8], "truncated"),
    "half png": (PNG[: len(PNG) // 2], "truncated|not a whole picture"),
    "bad checksum": (flipped(PNG, PNG.index(b"IDAT") + 6), "broken|bad|CRC|checksum"),
    "web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "PostScript"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a whole picture"),
    "text": (b"hello", "not a whole picture"),
    "bomb": (png(14000, 14000, 1, 0, b"\0" * 14000 * 1751), "pixels"),
    "bomb below Pillow's limit": (png(9000, 9000, 1, 0, b"\0" * 9000 * 1126), "67108864"),
    "thread": (png(30000, 1, 8, 0, b"\0" * 30001), "1:200"),
    "no pixels": (png(0, 4, 8, 0, b""), "."),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_damage_has_a_reason(kind: str, tmp_path: Path):
    content, reason = BAD_FILES[kind]
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(UnreadablePicture) as caught:
            decode(source)
        assert re.search(reason, caught.value.reason), caught.value.reason
    assert caught.value.name == str(path)


def test_one_pixel_is_a_picture():
    assert decode(encoded(Image.new("RGB", (1, 1), "red"))).flatten().tolist() == [255, 0, 0]


def test_metadata_that_is_damaged_does_not_matter():
    content = encoded(Image.fromarray(COLOURS), exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    np.testing.assert_array_equal(pixels(content), COLOURS)


def test_what_is_no_file_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.jpg"))
    for name in ("pipe.jpg", "s.jpg", "", "missing.jpg"):
        with pytest.raises(UnreadablePicture):
            decode(tmp_path / name)


def test_the_error_crosses_processes():
    error = pickle.loads(pickle.dumps(UnreadablePicture("a\udcff.jpg", "why")))
    assert (error.name, error.reason) == ("a\udcff.jpg", "why")
    assert str(error).encode()
