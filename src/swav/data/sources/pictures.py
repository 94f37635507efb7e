"""A set of pictures by position, with what is known about it."""

import mmap
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from swav.data.sources.cache import Cached
from swav.data.sources.decode import Decoded, Reduction, UnreadablePicture, quiet_pillow
from swav.data.sources.fingerprint import fingerprint
from swav.data.sources.listing import BadFile, Labels, PackedNames
from swav.data.sources.readers import Chosen, Contents, Packed, Reader, Size, Stack

if TYPE_CHECKING:
    from swav.data.sources.open import SourceConfig

P = ParamSpec("P")
R = TypeVar("R")

SAMPLED_HEADERS = 256
_CHUNK = 128
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a recipe needs to know of a set."""

    num_images: int
    height: int
    """Median of at most 256 pictures, as is the width."""
    width: int
    channels: int
    num_classes: int
    """0 without labels."""
    in_memory: bool
    """Whether the decoded pictures are in memory."""


@final
class Pictures:
    """Pictures in a fixed order, by their position; decoded when asked for, or all by ``load``.

    Cheap to pickle and to fork: no Python object for each picture. Labels never go into training.
    """

    def __init__(
        self,
        data: str,
        contents: Contents,
        *,
        channels: int = 3,
        max_bad_fraction: float = 0.01,
        max_memory_gib: float = 1.0,
        cache_gib: float = 0.0,
        source: "SourceConfig | None" = None,
    ) -> None:
        if channels < 1:
            raise ValueError(f"channels {channels} must be at least 1")
        self.data = data
        self.names: PackedNames = contents.names
        labels, classes = contents.labelled or (None, ())
        self.labels: Int64[np.ndarray, " images"] | None = labels
        self.classes: tuple[str, ...] = classes
        self.bad_files: list[BadFile] = list(contents.bad_files)
        self.columns: Mapping[str, PackedNames] = dict(contents.columns)  # can be pickled
        self.channels = channels
        self.splits = contents.splits
        self.source = source
        """Opens the same pictures again; None for arrays of a program and for chosen pictures."""
        self._reader = contents.reader
        self._listed = contents
        self._max_bad_fraction = max_bad_fraction
        self._max_memory_gib = max_memory_gib
        self._cache_gib = cache_gib
        # fixed: bad files are met later and would else count twice
        self._num_listed = len(self.names) + len(self.bad_files)
        self._num_bad_listed = len(self.bad_files)
        # shared with forked workers, so that the limit is that of the set, not of one worker
        self._met_bad = np.frombuffer(mmap.mmap(-1, len(self.names) or 1), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> UInt8[Tensor, "channels height width"]:
        """Return one picture.

        Raises:
            UnreadablePicture: If it cannot be read; the caller may take another.
            ValueError: If by now more than ``max_bad_fraction`` of the set could not be read.
        """
        row = range(len(self))[index]  # from the end too, and never beyond it
        if self.pixels is not None:
            return self.pixels[row]
        return self._read(row, self._reader.picture, row, self.channels)

    def reduced(self, index: int, reduction: Reduction | None) -> Decoded:
        """Return one picture as small as ``reduction`` allows, where that saves time.

        Raises:
            UnreadablePicture: As ``pictures[index]`` does, and ``ValueError`` too.
        """
        return self._read(index, self._reader.reduced, index, self.channels, reduction)

    def _read(self, row: int, read: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with quiet_pillow():
                return read(*args, **kwargs)
        except (OSError, ValueError) as error:
            bad = BadFile(self.names[row], _reason(error))
            if not self._met_bad[row]:
                self._met_bad[row] = True
                self.bad_files.append(bad)
                self._check_bad(self._num_bad_listed + int(self._met_bad.sum()))
            raise UnreadablePicture(*bad) from error

    @property
    def pixels(self) -> UInt8[Tensor, "images channels height width"] | None:
        """All pictures as one tensor, if they are in memory and of one size."""
        return self._reader.pixels if isinstance(self._reader, Stack) else None

    @property
    def in_memory(self) -> bool:
        """Whether the decoded pictures are in memory."""
        return isinstance(self._reader, Stack | Packed)

    def load(self) -> "Pictures":
        """Return the set decoded in memory, or this one if that takes more than the limit.

        Pictures that cannot be read are left out then; the others keep their order. Of a set
        that takes more, the cache keeps what ``reduced`` decodes, as much as fits there.

        Raises:
            ValueError: If more than ``max_bad_fraction`` of the set cannot be read.
        """
        self._check_bad(self._num_bad_listed)
        limit = int(self._max_memory_gib * 2**30)
        if self.in_memory:
            return self
        # by a sample of headers, and again while decoding: nothing is decoded for nothing
        fits = self._expected_bytes <= limit
        decoded = _decode_all(self._reader, self.channels, limit) if fits else None
        if decoded is None:
            return self._cached() if self._cache_gib else self
        bad_files = [BadFile(self.names[row], reason) for row, reason in decoded.bad]
        self.bad_files[self._num_bad_listed :] = bad_files
        self._check_bad(len(self.bad_files))
        kept = np.delete(np.arange(len(self)), [row for row, _ in decoded.bad])
        return self._loaded(decoded.reader, kept)

    def file(self, index: int) -> Path | None:
        """Return the file of a picture that is one; None in archives, arrays and memory."""
        path = self._reader.file(index)
        return None if path is None else Path(path)

    def subset(self, indices: Int64[np.ndarray, " chosen"]) -> "Pictures":
        """Return the pictures at ``indices``, in that order.

        As many of them may be unreadable as of the whole set: a few chosen ones are no sample.
        """
        if self.pixels is not None:
            return self._with(Stack(self.pixels[torch.from_numpy(indices)]), indices, [])
        subset = self._with(Chosen(self._reader, indices), indices, [])
        subset._max_bad_fraction *= max(self._num_listed / max(len(indices), 1), 1.0)
        return subset

    def digest(self) -> str:
        """Return a text that changes when a picture or its name does; labels are not in it.

        Of pictures in memory it is made from the pixels, of files from their size and time.
        """
        digest = blake2b(f"{self.channels} {len(self)}".encode(), digest_size=16)
        for row in range(len(self)):
            digest.update(self.names[row].encode("utf-8", "surrogateescape") + b"\0")
            digest.update(self._stamp(row))
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """A text that other pictures do not have: of those listed, decoded and left out or not."""
        return fingerprint(self._listed.names, self._listed.reader, channels=self.channels)

    def facts(self) -> DataFacts:
        """Return size and kind of the set, from the headers of a sample.

        Raises:
            ValueError: If not one of the sample can be read.
        """
        height, width = (int(side) for side in np.median(self._sampled_sizes, axis=0))
        return DataFacts(
            num_images=len(self),
            height=height,
            width=width,
            channels=self.channels,
            num_classes=len(self.classes),
            in_memory=self.in_memory,
        )

    def _cached(self) -> "Pictures":
        max_bytes = int(self._cache_gib * 2**30)
        reader = Cached(self._reader, max_bytes=max_bytes, channels=self.channels)
        return self._loaded(reader, np.arange(len(self)))

    def _loaded(self, reader: Reader, rows: Int64[np.ndarray, " chosen"]) -> "Pictures":
        loaded = self._with(reader, rows, self.bad_files, self.source)
        loaded._listed = self._listed
        return loaded

    def _with(
        self,
        reader: Reader,
        rows: Int64[np.ndarray, " chosen"],
        bad_files: list[BadFile],
        source: "SourceConfig | None" = None,
    ) -> "Pictures":
        names = PackedNames(self.names[row] for row in rows.tolist())
        columns = {
            name: PackedNames(values[row] for row in rows.tolist())
            for name, values in self.columns.items()
        }
        labelled = None if self.labels is None else Labels(self.labels[rows], self.classes)
        return Pictures(
            self.data,
            Contents(reader, names, labelled, bad_files, columns, self.splits),
            channels=self.channels,
            max_bad_fraction=self._max_bad_fraction,
            max_memory_gib=self._max_memory_gib,
            cache_gib=self._cache_gib,
            source=source,
        )

    @cached_property
    def _sampled_sizes(self) -> Int64[np.ndarray, "sampled 2"]:
        # evenly, as sets are often sorted; headers alone, as decoding takes as long as an epoch
        rows = np.linspace(0, len(self) - 1, min(len(self), SAMPLED_HEADERS)).astype(np.int64)
        sizes: list[Size] = []
        first_error = ""
        for row in rows.tolist():
            try:
                sizes.append(self._reader.size(row))
            except (OSError, ValueError) as error:
                first_error = first_error or f"{self.names[row]!r}: {_reason(error)}"
        if not sizes:
            raise ValueError(f"none of the pictures of {self.data} can be read ({first_error})")
        return np.array(sizes, dtype=np.int64)

    @property
    def _expected_bytes(self) -> float:
        return float(self._sampled_sizes.prod(axis=1).mean()) * self.channels * len(self)

    def _stamp(self, row: int) -> bytes:
        try:
            return self._reader.stamp(row, self.channels)
        except (OSError, ValueError):
            return b"unreadable"  # the digest of a set with a bad file is one too

    def _check_bad(self, num_bad: int) -> None:
        if num_bad <= self._max_bad_fraction * self._num_listed and num_bad < self._num_listed:
            return
        lines = [f"  {bad.name!r}: {bad.reason}" for bad in self.bad_files[:_EXAMPLES]]
        raise ValueError(
            f"{num_bad} of {self._num_listed} pictures of {self.data} cannot be read, more than "
            f"the accepted share of {self._max_bad_fraction:g}:\n" + "\n".join(lines) + "\n"
            "remove or repair them, or raise max_bad_fraction (below 1)"
        )


class _Decoded(NamedTuple):
    reader: Reader
    bad: list[tuple[int, str]]


class _Chunk(NamedTuple):
    content: bytes
    shapes: list[tuple[int, ...]]
    bad: list[tuple[int, str]]


def _decode_all(reader: Reader, channels: int, max_bytes: int) -> _Decoded | None:
    """Decode everything with all cores; ``None`` if it is more than ``max_bytes`` after all."""
    content = bytearray()
    shapes: list[tuple[int, ...]] = []
    bad: list[tuple[int, str]] = []
    starts = range(0, len(reader), _CHUNK)
    # threads, as decoders let go of the interpreter's lock
    with quiet_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # in the order of the set, whichever thread is first
        for chunk in pool.map(lambda start: _decode_chunk(reader, channels, start), starts):
            content += chunk.content
            shapes += chunk.shapes
            bad += chunk.bad
            if len(content) > max_bytes:
                pool.shutdown(cancel_futures=True)
                return None
    if not shapes:
        return _Decoded(Stack(torch.empty(0, channels, 1, 1, dtype=torch.uint8)), bad)
    block = torch.frombuffer(content, dtype=torch.uint8)
    if len(set(shapes)) == 1:
        channels, height, width = shapes[0]
        pixels = block.view(len(shapes), height, width, channels).permute(0, 3, 1, 2)
        return _Decoded(Stack(pixels), bad)
    return _Decoded(Packed(block, np.array(shapes, dtype=np.int64)), bad)


def _decode_chunk(reader: Reader, channels: int, start: int) -> _Chunk:
    pictures: list[UInt8[Tensor, "channels _ _"]] = []
    bad: list[tuple[int, str]] = []
    for row in range(start, min(start + _CHUNK, len(reader))):
        try:
            pictures.append(reader.picture(row, channels))
        except (OSError, ValueError) as error:
            bad.append((row, _reason(error)))
    # channels last, as the compiled kernel reads them
    content = b"".join(picture.permute(1, 2, 0).numpy().tobytes() for picture in pictures)
    return _Chunk(content, [tuple(picture.shape) for picture in pictures], bad)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnreadablePicture):
        return error.reason
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
