"""What lies in a folder: picture files in a fixed order, and the classes their folders name."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Int64

from swav.data.sources import decode

SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Names that end so are taken for pictures; the bytes decide what they are."""
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}

_log = logging.getLogger(__name__)


class BadFile(NamedTuple):
    """A file that is not used, and why."""

    name: str
    reason: str


class PackedNames(Sequence[str]):
    """Many names in two blocks of memory: nothing that forked workers would copy by reading."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedNames": ...
    def __getitem__(self, index: int | slice) -> "str | PackedNames":
        if isinstance(index, slice):
            return PackedNames(self[row] for row in range(len(self))[index])
        row = range(len(self))[index]
        start, end = int(self._ends[row]), int(self._ends[row + 1])
        return self._text[start:end].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))


class Labels(NamedTuple):
    """The class of every picture, and the names of the classes."""

    labels: Int64[np.ndarray, " images"]
    classes: tuple[str, ...]


@dataclass
class Listing:
    """The picture files of a folder, what cannot be read, and the suffixes passed over."""

    names: list[str] = field(default_factory=list)
    bad_files: list[BadFile] = field(default_factory=list)
    other_suffixes: Counter[str] = field(default_factory=Counter)


def is_picture(name: str) -> bool:
    """Say whether a file name ends as those of pictures do; hidden files do not count."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Say whether a folder is one that people and programs do not mean to show."""
    return name.startswith((".", "@")) or name == "__MACOSX"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether this is a folder or a link to one; a link that cannot be followed is not."""
    try:
        return entry.is_dir()
    except OSError:  # leads to itself, to a name that is too long, or through a closed folder
        return False


def list_folder(root: str) -> Listing:
    """Return every picture file below ``root``, sorted by the bytes of its path within it.

    Links are followed. A folder is entered once, under its real place if it has one here, and
    never when it is one that contains ``root``: a loop of links ends. What cannot be followed or
    read is a bad file, and costs nothing else.
    """
    listing = Listing()
    # by device and inode: a name says nothing where links lead in a circle
    entered = set(_containing(root))
    linked: list[str] = []
    waiting = [""]
    while waiting or linked:
        if waiting:
            prefix = waiting.pop()
        else:
            # after all real folders, so that each is listed under its own path
            linked.sort(key=os.fsencode, reverse=True)
            prefix = linked.pop()
        try:
            _enter(root, prefix, entered, listing, waiting, linked)
        except OSError as error:
            reason = f"the folder cannot be read: {error.strerror}"
            listing.bad_files.append(BadFile(prefix or root, reason))
    # bytes have one order, whatever the locale or the file system
    listing.names.sort(key=os.fsencode)
    listing.bad_files.sort()
    return listing


def _containing(root: str) -> Iterator[tuple[int, int]]:
    folder = os.path.realpath(root)
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        status = os.stat(folder)
        yield status.st_dev, status.st_ino


def _enter(
    root: str,
    prefix: str,
    entered: set[tuple[int, int]],
    listing: Listing,
    waiting: list[str],
    linked: list[str],
) -> None:
    folder = os.path.join(root, prefix)
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in entered:
        _log.info("%r leads to a folder already listed", folder)
        return
    entered.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            try:
                _note(entry, name, listing, waiting, linked)
            except (OSError, ValueError) as error:
                if is_picture(entry.name) or not is_hidden(entry.name):
                    listing.bad_files.append(BadFile(name, _reason(error)))


def _note(
    entry: os.DirEntry[str],
    name: str,
    listing: Listing,
    waiting: list[str],
    linked: list[str],
) -> None:
    if entry.is_symlink():
        entry.stat()  # whatever its name, a lost link may have led to a folder of pictures
    if entry.is_dir():
        if not is_hidden(entry.name):
            (linked if entry.is_symlink() else waiting).append(name)
    elif is_picture(entry.name):
        # reading a pipe or a device could block for ever
        decode.check_regular(entry.stat())
        listing.names.append(name)
    else:
        listing.other_suffixes[os.path.splitext(entry.name)[1].lower()] += 1


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def label_by_folder(names: Sequence[str], classes: Iterable[str] = ()) -> Labels | None:
    """Return labels if every picture lies one folder deep and there are two folders or more.

    ``classes`` are those of the other splits of the same set, so that numbers agree.
    """
    folders: set[str] = set()
    for name in names:
        folder, _, base = name.partition("/")
        if not base or "/" in base:
            return None
        folders.add(folder)
    if len(folders) < 2:
        return None
    return number([name.partition("/")[0] for name in names], classes)


def number(values: Sequence[str], classes: Iterable[str] = ()) -> Labels:
    """Return class numbers for class names, in the order of their numbers or else of the text."""
    # with those of the other parts: a class that one part lacks keeps its number
    names = {*values, *classes}
    # 10 comes after 9, as in the labels of a set that has numbers for names
    whole = all(name.removeprefix("-").isdecimal() for name in names)
    ordered = sorted(names, key=lambda name: (int(name) if whole else 0, name))
    numbers = {name: number for number, name in enumerate(ordered)}
    return Labels(np.array([numbers[value] for value in values], dtype=np.int64), tuple(ordered))


def split_folders(folders: Iterable[str]) -> dict[str, str]:
    """Return part -> folder if there are no other folders than those of train, val and test."""
    by_part = {SPLIT_FOLDERS.get(folder, ""): folder for folder in sorted(folders)}
    if "train" not in by_part or "" in by_part:
        return {}
    return {part: by_part[part] for part in ("train", "val", "test") if part in by_part}
