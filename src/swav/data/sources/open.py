"""From DATA as people type it, or arrays that a program holds, to a set of pictures."""

import logging
import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from numpy.typing import ArrayLike
from PIL import Image

from swav.config import check_ranges
from swav.data.sources import archives, arrays, folders, lists, named
from swav.data.sources.folders import check_split
from swav.data.sources.listing import PackedNames, is_picture
from swav.data.sources.pictures import Pictures
from swav.data.sources.readers import Contents, Files

FORMS = f"""\
a picture
a folder of pictures (flat, nested, one folder a class, or with train/ and test/ inside)
a list of paths ({", ".join(lists.SUFFIXES)}; in a table the columns 'path' and 'label')
an archive ({", ".join(archives.SUFFIXES)})
arrays ({", ".join(arrays.SUFFIXES)})
clothes, emoji or digits, which are built in
a set of torchvision as NAME:FOLDER ({", ".join(named.TORCHVISION)}), or imagenet:FOLDER"""
_log = logging.getLogger(__name__)
_NAMES = (*named.BUILT_IN, *named.TORCHVISION, "imagenet")

Data = str | Path | Pictures | Image.Image | arrays.InMemory
"""What Python functions take for pictures: DATA as it is typed, or what ``from_arrays`` takes."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The pictures that a run reads."""

    data: str = ""
    """A picture, folder, list, archive, array file, built-in set (``clothes``, ...) or
    ``NAME:FOLDER``."""
    channels: int = 3
    """1 is grey, 3 is colour; anything else must be what the files hold."""
    split: str | None = None
    """Which part of DATA, of those that ``splits`` names; by default the one to train on."""
    max_bad_fraction: float = 0.01
    """Share of the pictures that may be unreadable."""
    max_memory_gib: float = 1.0
    """Sets that take less are held decoded in memory."""
    cache_gib: float = 0.0
    """Of a set that takes more, as many decoded pictures are kept as fit into this."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            channels="[1, 1024]",
            max_bad_fraction="[0, 1)",
            max_memory_gib="[0, 1e6]",
            cache_gib="[0, 1e6]",
        )

    def build(self) -> Pictures:
        """Return the pictures; ``load`` them to hold them decoded."""
        return open_source(self)


def splits(data: str) -> tuple[str, ...]:
    """Return the parts that DATA comes in, such as train and test; none if it is one set.

    Raises:
        ValueError: If DATA is not understood.
    """
    name, folder = _named(data)
    if name in named.TORCHVISION:
        return named.TORCHVISION[name].splits
    if name in named.BUILT_IN:
        return ()
    path = _existing(folder or data)
    if path.is_dir():
        return tuple(folders.folder_splits(path))
    if path.suffix.lower() == ".npz":
        return arrays.npz_splits(path)
    if path.name.lower().endswith(archives.SUFFIXES):
        return folders.archive_splits(path)
    return ()


def open_source(config: SourceConfig) -> Pictures:
    """Return the pictures of DATA, with labels where it has them.

    Raises:
        ValueError: If DATA is not understood, or holds no picture.
    """
    name, folder = _named(config.data)
    if name in named.BUILT_IN:
        if Path(name).exists():
            _log.warning(
                "%s is the built-in set; what lies here under this name is ./%s", name, name
            )
        check_split(config.data, config.split, ())
        contents = named.open_built_in(name, channels=config.channels)
    elif name in named.TORCHVISION:
        check_split(config.data, config.split, named.TORCHVISION[name].splits)
        root = Path(folder).expanduser()
        contents = named.open_torchvision(name, root, config.split, channels=config.channels)
        contents = contents._replace(splits=named.TORCHVISION[name].splits)
    else:
        contents = _open_path(_existing(folder or config.data), config)
    return _pictures(config, contents, source=config)


def named_or_opened(data: Data, *, channels: int = 3) -> str | Pictures:
    """Return DATA as it is typed, or the opened pictures of what a program holds."""
    if isinstance(data, str | Path):
        return str(data)
    return data if isinstance(data, Pictures) else from_arrays(data, channels=channels)


def opened_as(data: Data, source: SourceConfig) -> Pictures:
    """Return pictures, read as those of ``source`` are."""
    found = named_or_opened(data, channels=source.channels)
    if isinstance(found, Pictures):
        return found
    return replace(source, data=found, split=None).build()


def from_arrays(
    pictures: arrays.InMemory | Image.Image,
    labels: ArrayLike | None = None,
    *,
    channels: int = 3,
    max_memory_gib: float = 1.0,
) -> Pictures:
    """Return pictures that a program holds.

    They are an array or tensor (images, height, width[, channels], or channels second), a Pillow
    image, a list of such images, of arrays or of paths, or a Hugging Face ``Dataset`` with a column
    ``image``. Labels are numbers or names.

    Raises:
        ValueError: If they cannot be taken for pictures, or labels do not fit them.
    """
    config = SourceConfig(data="arrays", channels=channels, max_memory_gib=max_memory_gib)
    held = [pictures] if isinstance(pictures, Image.Image) else pictures
    return _pictures(config, arrays.contents_of(held, labels, channels=channels))


def _pictures(
    config: SourceConfig, contents: Contents, source: SourceConfig | None = None
) -> Pictures:
    return Pictures(
        config.data,
        contents,
        channels=config.channels,
        max_bad_fraction=config.max_bad_fraction,
        max_memory_gib=config.max_memory_gib,
        cache_gib=config.cache_gib,
        source=source,
    )


def _named(data: str) -> tuple[str, str]:
    """Return name and folder of ``NAME:FOLDER``, or two empty texts."""
    if data in named.BUILT_IN:
        return data, ""
    name, _, folder = data.partition(":")
    return (name, folder) if folder and name in _NAMES else ("", "")


def _existing(data: str) -> Path:
    path = Path(data).expanduser()
    if data and path.exists():
        return path
    raise ValueError(
        f"DATA {data!r} is no file, folder or set that is known.{_suggestion(data, path)} "
        f"DATA is one of:\n{FORMS}"
    )


def _suggestion(data: str, path: Path) -> str:
    name, colon, folder = data.partition(":")
    if name in named.TORCHVISION or name == "imagenet":
        return f" {name} needs the folder of its files: {name}:FOLDER."
    close = get_close_matches(name.lower(), _NAMES, n=1, cutoff=0.7)
    if close:
        full = close[0] if close[0] in named.BUILT_IN else f"{close[0]}:{folder or 'FOLDER'}"
        return f" Did you mean {full}?"
    if colon or not path.parent.is_dir():
        return ""
    close = get_close_matches(path.name, sorted(os.listdir(path.parent)), n=1)
    return f" Did you mean {path.parent / close[0]}?" if close else ""


def _open_path(path: Path, config: SourceConfig) -> Contents:
    name = path.name.lower()
    max_bytes = int(config.max_memory_gib * 2**30)
    if path.is_dir():
        return folders.open_folder(path, config.split)
    if name.endswith(archives.SUFFIXES):
        return folders.open_archive(path, config.split, max_bytes=max_bytes)
    if name.endswith(arrays.SUFFIXES):
        parts = arrays.npz_splits(path) if name.endswith(".npz") else ()
        check_split(config.data, config.split, parts)
        contents = arrays.open_array(
            path, channels=config.channels, split=config.split, max_bytes=max_bytes
        )
        return contents._replace(splits=parts)
    check_split(config.data, config.split, ())
    if name.endswith(lists.SUFFIXES):
        return lists.open_list(path)
    if is_picture(name):
        only = PackedNames([path.name])
        return Contents(Files(path.parent, only), only)
    raise ValueError(f"DATA {path} is of no kind that is known. DATA is one of:\n{FORMS}")
