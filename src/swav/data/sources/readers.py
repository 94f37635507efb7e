"""Where the pixels of a set come from: files, archives, arrays, images in memory."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from PIL import Image
from torch import Tensor

from swav.data.sources import archives, decode
from swav.data.sources.archives import Index, Member
from swav.data.sources.decode import Decoded, Reduction
from swav.data.sources.listing import BadFile, Labels, PackedNames

Size = tuple[int, int]
"""Height and width."""


class Reader(ABC):
    """Gives pictures by their row: cheap to pickle, and safe to share by threads and forks."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return a picture.

        Raises:
            ValueError: With the reason why it cannot be read.
        """

    def reduced(self, row: int, channels: int, _reduction: Reduction | None) -> Decoded:
        """Return a picture as small as a reduction allows, if that saves time to decode it."""
        picture = self.picture(row, channels)
        return Decoded(picture, (picture.shape[1], picture.shape[2]))

    @abstractmethod
    def size(self, row: int) -> Size:
        """Return height and width without decoding the picture; raises as ``picture`` does."""

    def file(self, _row: int) -> str | None:
        """Return the path of a picture that is a file of its own."""
        return None

    def stamp(self, row: int, channels: int) -> bytes:
        """Return bytes that change when the picture does: of a file its size and time."""
        return self.picture(row, channels).numpy().tobytes()

    def content(self, row: int, channels: int) -> bytes:
        """Return what a picture is read from, wherever that lies; by default its pixels."""
        return self.picture(row, channels).numpy().tobytes()

    def num_bytes(self, _row: int) -> int:
        """Return the length of what a picture is read from, 0 where only reading would tell."""
        return 0


class Contents(NamedTuple):
    """What a data set on the disk turned out to hold."""

    reader: Reader
    names: PackedNames
    labelled: Labels | None = None
    bad_files: Sequence[BadFile] = ()
    columns: Mapping[str, PackedNames] = {}  # nobody writes to it
    """Columns ``group`` and ``time`` of a table that has them, as they are written."""
    splits: tuple[str, ...] = ()
    """The parts that the data comes in, such as train and test; these pictures are of one."""


class Stack(Reader):
    """Decoded pictures of one size."""

    def __init__(self, pixels: UInt8[Tensor, "images channels height width"]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return a view of the block."""
        picture = self.pixels[row]
        assert len(picture) == channels
        return picture

    def size(self, row: int) -> Size:
        """Return the one size."""
        _, height, width = self.pixels[row].shape
        return height, width


class Packed(Reader):
    """Decoded pictures of many sizes, one after the other in one block, channels last."""

    def __init__(
        self, block: UInt8[Tensor, " bytes"], shapes: Int64[np.ndarray, "images 3"]
    ) -> None:
        self._block = block
        self._shapes = shapes
        # in 64 bits: a block may be larger than 2**31 bytes
        self._ends = np.cumsum([0, *shapes.prod(axis=1)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._shapes)

    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return a view of the block."""
        num_channels, height, width = self._shapes[row].tolist()
        assert num_channels == channels
        content = self._block[self._ends[row] : self._ends[row + 1]]
        return content.view(height, width, channels).permute(2, 0, 1)

    def size(self, row: int) -> Size:
        """Return height and width."""
        _, height, width = self._shapes[row].tolist()
        return height, width


class Chosen(Reader):
    """Some pictures of another reader."""

    def __init__(self, reader: Reader, rows: Int64[np.ndarray, " images"]) -> None:
        self._reader = reader
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return what the other reader gives."""
        return self._reader.picture(int(self._rows[row]), channels)

    def reduced(self, row: int, channels: int, reduction: Reduction | None) -> Decoded:
        """Return what the other reader gives."""
        return self._reader.reduced(int(self._rows[row]), channels, reduction)

    def size(self, row: int) -> Size:
        """Return what the other reader gives."""
        return self._reader.size(int(self._rows[row]))

    def file(self, row: int) -> str | None:
        """Return what the other reader gives."""
        return self._reader.file(int(self._rows[row]))

    def stamp(self, row: int, channels: int) -> bytes:
        """Return what the other reader gives."""
        return self._reader.stamp(int(self._rows[row]), channels)

    def content(self, row: int, channels: int) -> bytes:
        """Return what the other reader gives."""
        return self._reader.content(int(self._rows[row]), channels)

    def num_bytes(self, row: int) -> int:
        """Return what the other reader gives."""
        return self._reader.num_bytes(int(self._rows[row]))


class Encoded(Reader):
    """Pictures that are decoded from a file or from bytes when they are asked for."""

    @abstractmethod
    def source(self, row: int) -> str | bytes:
        """Return the path of a picture's file, or what would stand in it."""

    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return a picture, decoded now."""
        return decode.decode_quietly(self.source(row), channels=channels)

    def reduced(self, row: int, channels: int, reduction: Reduction | None) -> Decoded:
        """Return a picture, a JPEG perhaps at a fraction of its size."""
        return decode.decode_reduced(self.source(row), reduction, channels=channels)

    def size(self, row: int) -> Size:
        """Return height and width by the header."""
        return decode.read_size(self.source(row))


class Files(Encoded):
    """Picture files; names are relative to a folder, or absolute."""

    def __init__(self, folder: Path, names: PackedNames) -> None:
        self._folder = str(folder)
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def source(self, row: int) -> str:
        """Return the path of a file."""
        return os.path.join(self._folder, self._names[row])

    def file(self, row: int) -> str:
        """Return the path of a file."""
        return self.source(row)

    def stamp(self, row: int, _channels: int) -> bytes:
        """Return size and time of a file."""
        status = os.stat(self.source(row))
        return f"{status.st_size} {status.st_mtime_ns}".encode()

    def content(self, row: int, _channels: int) -> bytes:
        """Return the bytes of a file."""
        with open(self.source(row), "rb") as file:
            return file.read(decode.MAX_FILE_BYTES)

    def num_bytes(self, row: int) -> int:
        """Return the size of a file."""
        return os.stat(self.source(row)).st_size


class Archive(Encoded):
    """Pictures inside a zip or tar."""

    def __init__(self, path: Path, index: Index) -> None:
        self._path = path
        # arrays: forked workers would copy the pages of Python objects by counting references
        crcs = [-1 if member.crc is None else member.crc for member in index.members]
        extents = [member[1:5] for member in index.members]
        self._extents = np.array(extents, dtype=np.int64).reshape(-1, 4)
        self._crcs = np.array(crcs, dtype=np.int64)
        content = index.content
        self._content = None if content is None else np.frombuffer(content, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._extents)

    def source(self, row: int) -> bytes:
        """Return the bytes of a member."""
        start, stored, size, deflated = self._extents[row].tolist()
        if self._content is not None:
            return self._content[start : start + size].tobytes()
        crc = None if self._crcs[row] < 0 else int(self._crcs[row])
        member = Member("", start, stored, size, deflated=bool(deflated), crc=crc)
        return archives.read_member(self._path, member)

    def stamp(self, row: int, _channels: int) -> bytes:
        """Return size and time of the archive, and where in it the member is."""
        status = os.stat(self._path)
        return f"{status.st_size} {status.st_mtime_ns} {self._extents[row].tolist()}".encode()

    def content(self, row: int, _channels: int) -> bytes:
        """Return the bytes of a member, as they would stand in a file."""
        return self.source(row)

    def num_bytes(self, row: int) -> int:
        """Return the unpacked size of a member."""
        return int(self._extents[row, 2])


class Images(Reader):
    """Pillow images that something gives by their position."""

    def __init__(self, get: Callable[[int], Image.Image], num_images: int) -> None:
        self._get = get
        self._num_images = num_images

    def __len__(self) -> int:
        return self._num_images

    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return an image in the channels asked for."""
        return decode.from_image(self._get(row), channels=channels)

    def size(self, row: int) -> Size:
        """Return height and width."""
        width, height = self._get(row).size
        return height, width


class Arrays(Reader):
    """Arrays of numbers of any type, which become bytes picture by picture."""

    def __init__(
        self,
        get: Callable[[int], Shaped[np.ndarray, "..."]],
        num_images: int,
        *,
        channels_last: bool,
        largest: float,
    ) -> None:
        self._get = get
        self._num_images = num_images
        self._channels_last = channels_last
        self._largest = largest

    def __len__(self) -> int:
        return self._num_images

    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return an array as bytes."""
        values = to_bytes(np.asarray(self._get(row)), largest=self._largest)
        if values.ndim == 2:
            values = values[None]
        elif self._channels_last:
            values = values.transpose(2, 0, 1)
        return match_channels(torch.from_numpy(np.array(values)), channels)

    def size(self, row: int) -> Size:
        """Return height and width."""
        shape = self._get(row).shape
        height, width = shape[:2] if len(shape) == 2 or self._channels_last else shape[1:]
        return height, width


def to_bytes(
    values: Shaped[np.ndarray, "*shape"], *, largest: float
) -> UInt8[np.ndarray, "*shape"]:
    """Return numbers as bytes, whose range is told by the largest of the whole set.

    Floats are of 0..1 or of 0..255. Of 16 bits the upper 8 are kept, unless the set has no number
    above 255: programs write bytes in that type too.

    Raises:
        ValueError: If values lie outside of 0..255.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint16 and largest > 255:
        # as decode does with files of 16 bits
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == "f":
        return decode.floats_to_bytes(values, unit=largest <= 1)
    if values.dtype.kind not in "iu":
        raise ValueError(f"pictures of type {values.dtype}: make them uint8")
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"values from {values.min()} to {values.max()}: make them uint8")
    return values.astype(np.uint8)


def match_channels(
    pixels: UInt8[Tensor, "*images stored height width"], channels: int
) -> UInt8[Tensor, "*images channels height width"]:
    """Return grey for RGB and RGB for grey, by Pillow's weights, or the channels as they are.

    Raises:
        ValueError: If other numbers of channels meet.
    """
    stored = pixels.shape[-3]
    if stored == channels:
        return pixels
    if (stored, channels) == (1, 3):
        return pixels.repeat_interleave(3, dim=-3)
    if (stored, channels) == (3, 1):
        red, green, blue = torch.chunk(pixels.to(torch.int32), 3, dim=-3)
        # Pillow's weights and rounding, so that arrays and files give the same grey
        return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).to(torch.uint8)
    raise ValueError(
        f"the pictures have {stored} channels, not {channels}: set channels to {stored}, "
        "or give arrays with 1 or 3"
    )
