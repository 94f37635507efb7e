"""Pictures as arrays: ``.npy``, ``.npz``, and what Python programs hold in memory."""

import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from swav.data.sources.listing import Labels, PackedNames, number
from swav.data.sources.readers import (
    Arrays,
    Contents,
    Files,
    Images,
    Reader,
    Stack,
    match_channels,
)

SUFFIXES = (".npy", ".npz")
# what other programs call them; numpy itself calls a nameless array arr_0
_PICTURE_KEYS = ("pictures", "images", "x", "arr_0")
_SAMPLED = 256
_HARMLESS_BYTES = 64 * 2**20  # of arrays, whatever the memory limit
_MOST_NAMED = 100_000  # classes that have a name although no picture shows them
# what numpy and zipfile raise for files that are damaged, encrypted or made to deceive
_DAMAGE = (
    *(OSError, ValueError, EOFError, BadZipFile, KeyError, MemoryError, zlib.error, struct.error),
    *(SyntaxError, TokenError, OverflowError, NotImplementedError, RuntimeError, TypeError),
)


@runtime_checkable
class Table(Protocol):
    """Rows with named columns, as of a Hugging Face ``Dataset``."""

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        ...

    @property
    def features(self) -> Mapping[str, Any]:
        """The types of the columns."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any) -> Any: ...


@runtime_checkable
class Named(Protocol):
    """A column whose numbers have names."""

    names: list[str]


Pixels = Shaped[np.ndarray, "images ..."] | Shaped[Tensor, "images ..."]
InMemory = (
    Pixels
    | Sequence[Image.Image]
    | Sequence[Shaped[np.ndarray, "..."]]
    | Sequence[str | Path]
    | Table
)


def contents_of(pictures: InMemory, labels: ArrayLike | None, *, channels: int) -> Contents:
    """Return pictures that a program holds; ``labels`` are numbers or names, one a picture.

    Raises:
        ValueError: If they cannot be taken for pictures, or labels and pictures differ in number.
    """
    classes: Sequence[str] = ()
    names: PackedNames | None = None
    reader: Reader
    if isinstance(pictures, np.ndarray):
        reader = array_reader(pictures, channels=channels)
    elif isinstance(pictures, Tensor):
        reader = array_reader(pictures.detach().cpu().numpy(), channels=channels, first=True)
    elif isinstance(pictures, Table):
        column = _column(pictures, ("image", "img", "picture"))
        reader = Images(partial(_image, pictures, column), len(pictures))
        if labels is None and "label" in pictures.column_names:
            labels = pictures["label"]
            feature = pictures.features["label"]
            classes = feature.names if isinstance(feature, Named) else ()
    elif paths := _paths(pictures):
        names = PackedNames(paths)
        reader = Files(Path(), names)
    else:
        reader = _list_reader(pictures, channels)
    labelled = None if labels is None else to_labels(labels, len(reader), classes)
    return Contents(reader, names or numbered_names(len(reader)), labelled)


def array_reader(
    values: Shaped[np.ndarray, "images ..."], *, channels: int, first: bool = False
) -> Reader:
    """Return pictures from (images, height, width) with or without channels, first or last.

    ``first`` says which of the two it is when the shape allows both.

    Raises:
        ValueError: If shape, type or range are not those of pictures.
    """
    channels_last = _check(values, channels, first)
    if values.dtype != np.uint8:
        return Arrays(
            values.__getitem__, len(values), channels_last=channels_last, largest=_largest(values)
        )
    # writeable, as torch warns of memory that is not
    pixels = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    if values.ndim == 3:
        pixels = pixels[:, None]
    elif channels_last:
        pixels = pixels.permute(0, 3, 1, 2)  # not copied: a set may take half of the memory
    return Stack(match_channels(pixels, channels))


def open_array(path: Path, *, channels: int, split: str | None, max_bytes: int) -> Contents:
    """Return the pictures of a ``.npy`` or ``.npz`` file, never with pickled objects in it.

    Raises:
        ValueError: If it is damaged, or holds no pictures.
    """
    labels: np.ndarray | None = None
    if path.suffix.lower() == ".npz":
        part = split or ("train" if npz_splits(path) else None)
        values, labels = _read_npz(path, part, max_bytes)
        reader = array_reader(values, channels=channels)
    else:
        values = _map_npy(path)
        if values.dtype.kind == "f" or values.nbytes > max_bytes:
            channels_last = _check(values, channels, first=False)
            reader = Arrays(
                partial(_npy_row, path),
                len(values),
                channels_last=channels_last,
                largest=_largest(values),
            )
        else:
            reader = array_reader(np.array(values), channels=channels)
    labelled = None if labels is None else to_labels(labels, len(reader))
    return Contents(reader, numbered_names(len(reader)), labelled)


def npz_splits(path: Path) -> tuple[str, ...]:
    """Return the parts of a file with arrays such as ``train_images`` and ``test_images``."""
    with _loaded_npz(path) as archive:
        keys = set(archive.files)
    parts = [part for part in ("train", "val", "test") if f"{part}_images" in keys]
    return tuple(parts) if "train" in parts else ()


def numbered_names(num_images: int) -> PackedNames:
    """Return ``000000``, ``000001``...: names for what has none."""
    return PackedNames(f"{row:06d}" for row in range(num_images))


def to_labels(values: ArrayLike, num_images: int, classes: Sequence[str] = ()) -> Labels:
    """Return class numbers as they are, and names numbered in order.

    Raises:
        ValueError: If there is not one label a picture, or one is negative or a fraction.
    """
    labels = np.asarray(values)
    if labels.size != num_images or labels.ndim not in (1, 2) or len(labels) != num_images:
        raise ValueError(f"labels of shape {labels.shape} for {num_images} pictures: give one each")
    labels = labels.reshape(-1)
    if labels.dtype.kind in "US":
        return number([str(label) for label in labels.astype(str)])
    if labels.dtype.kind not in "iub" or labels.min() < 0:
        raise ValueError(
            f"labels of type {labels.dtype} from {labels.min()}: they must be names, or whole "
            "numbers from 0 up"
        )
    if not classes and labels.max() >= _MOST_NAMED:  # dates, say, or numbers of products
        return number([str(label) for label in labels.tolist()])
    labels = labels.astype(np.int64)
    names = list(classes) or [str(label) for label in range(int(labels.max()) + 1)]
    return Labels(labels, tuple(names))


def _image(table: Table, column: str, row: int) -> Image.Image:
    image = table[row][column]
    if not isinstance(image, Image.Image):
        raise ValueError(f"column {column!r} holds {type(image).__name__}, no image")
    return image


def _npy_row(path: Path, row: int) -> Shaped[np.ndarray, "..."]:
    picture: np.ndarray = _map_npy(path)[row]
    return picture


# a process maps a file once, though pictures are asked for one by one
@lru_cache(maxsize=4)
def _map_npy(path: Path) -> Shaped[np.ndarray, "..."]:
    try:
        # pickled objects in a file can run any program
        values: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read as an array: {error}") from error
    return values


@contextmanager
def _loaded_npz(path: Path) -> "Iterator[np.lib.npyio.NpzFile]":
    with open(path, "rb") as file:  # numpy leaves it open where it is damaged
        with _damage_named(path):
            archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path} is no .npz file: rename it to .npy if it is one array")
        with archive:
            yield archive


def _read_npz(
    path: Path, split: str | None, max_bytes: int
) -> tuple[Shaped[np.ndarray, "..."], Shaped[np.ndarray, "..."] | None]:
    with _loaded_npz(path) as archive:
        wanted = [f"{split}_images"] if split else list(_PICTURE_KEYS)
        label_key = f"{split}_labels" if split else "labels"
        keys = [key for key in wanted if key in archive.files]
        if not keys:
            raise ValueError(
                f"{path} holds {archive.files}: name the pictures 'pictures' and their labels, if "
                "any, 'labels'"
            )
        for key in (keys[0], label_key):
            if key in archive.files:
                _check_size(path, key, max(max_bytes, _HARMLESS_BYTES))
        with _damage_named(path):
            labels = archive[label_key] if label_key in archive.files else None
            return archive[keys[0]], labels


def _check_size(path: Path, key: str, max_bytes: int) -> None:
    """Refuse an array that is above the limit, by its header: numpy unpacks what that says."""
    with _damage_named(path), ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > max_bytes:
        raise ValueError(
            f"{path}: {key} takes {num_bytes / 2**30:.2f} GiB, above the limit of "
            f"{max_bytes / 2**30:g}, and cannot be read in parts: keep it as a .npy file, which "
            "can, or raise --data.max-memory-gib"
        )


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read as arrays: {error}") from error


def _check(values: Shaped[np.ndarray, "..."], channels: int, first: bool) -> bool:
    """Return whether channels come last, after making sure that these can be pictures."""
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise ValueError(
            f"an array of shape {values.shape}: pictures are (images, height, width), (images, "
            "height, width, channels) or (images, channels, height, width)"
        )
    if values.dtype.kind not in "buif":
        raise ValueError(f"an array of {values.dtype}: pictures are uint8, uint16 or float")
    if values.ndim == 3:
        return False
    known = {1, 3, channels}
    maybe_last, maybe_first = values.shape[3] in known, values.shape[1] in known
    if not maybe_last and not maybe_first:
        raise ValueError(
            f"an array of shape {values.shape} has neither 1, 3 nor {channels} channels: set "
            f"channels to {min(values.shape[1], values.shape[3])}"
        )
    return not first if maybe_last and maybe_first else maybe_last


def _largest(values: Shaped[np.ndarray, "images ..."]) -> float:
    """Return the largest number of a sample over the whole set, which tells its range."""
    # over the whole set: the first pictures may be dark
    rows = np.linspace(0, len(values) - 1, min(len(values), _SAMPLED)).astype(np.int64)
    return float(max(values[row].max() for row in rows))


def _column(table: Table, wanted: Sequence[str]) -> str:
    columns = [column for column in wanted if column in table.column_names]
    if not columns:
        raise ValueError(
            f"the data set has the columns {table.column_names}, none of {list(wanted)}: rename "
            "the one that holds the images"
        )
    return columns[0]


def _paths(pictures: Sequence[object]) -> list[str]:
    """Return the paths of a list of them, nothing of another list."""
    if not isinstance(pictures, list | tuple):
        return []
    paths = [os.fspath(path) for path in pictures if isinstance(path, str | Path)]
    if paths and len(paths) < len(pictures):
        raise ValueError("a list of paths and other things: give paths or pictures alone")
    return paths


def _list_reader(pictures: Sequence[object], channels: int) -> Reader:
    if not isinstance(pictures, list | tuple) or not pictures:
        raise ValueError(
            f"pictures of type {type(pictures).__name__}: give an array, a list of images, arrays "
            "or paths that is not empty, or a data set with a column 'image'"
        )
    first = pictures[0]
    if isinstance(first, Image.Image):
        return Images(pictures.__getitem__, len(pictures))
    sample = np.asarray(first)
    channels_last = _check(sample[None], channels, first=isinstance(first, Tensor))
    # of the set and not of a picture: a dark one may have no value above 1
    largest = max(float(np.asarray(picture).max()) for picture in pictures[:_SAMPLED])
    return Arrays(pictures.__getitem__, len(pictures), channels_last=channels_last, largest=largest)
