"""Sets laid out as a tree of folders, on the disk or in an archive: splits, classes, pictures."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from swav.data.sources import archives
from swav.data.sources.listing import (
    SUFFIXES,
    Listing,
    PackedNames,
    is_folder,
    is_hidden,
    is_picture,
    label_by_folder,
    list_folder,
    split_folders,
)
from swav.data.sources.readers import Archive, Contents, Files

_log = logging.getLogger(__name__)


def check_split(data: str, split: str | None, parts: Sequence[str]) -> None:
    """Raise ``ValueError`` if a part is asked for that DATA does not have."""
    if split is not None and split not in parts:
        has = f"has the parts {', '.join(parts)}" if parts else "is one set without parts"
        raise ValueError(f"split {split!r}: {data} {has}")


def folder_splits(path: Path) -> dict[str, str]:
    """Return part -> folder, if all that a folder shows is folders of train, val and test."""
    with os.scandir(path) as entries:
        visible = [entry for entry in entries if not is_hidden(entry.name)]
        # pictures beside train/ and test/ would be lost without a word
        if any(is_picture(entry.name) for entry in visible):
            return {}
        return split_folders(entry.name for entry in visible if is_folder(entry))


def open_folder(path: Path, split: str | None) -> Contents:
    """Return the pictures of a folder, or of its part to train on.

    Raises:
        ValueError: If there is no picture.
    """
    parts = folder_splits(path)
    check_split(str(path), split, tuple(parts))
    classes: set[str] = set()  # of all parts: a class must have one number in all of them
    for part in parts.values():
        try:
            with os.scandir(path / part) as entries:
                classes |= {entry.name for entry in entries if is_folder(entry)}
        except OSError as error:  # of the part that is wanted, the list of pictures tells it
            _log.warning("%s cannot be read: %s", path / part, error.strerror)
    if parts:
        path = path / parts[split or "train"]
    listing = list_folder(str(path))
    if not listing.names:
        raise ValueError(f"{path} holds no picture{_what_else(listing)}")
    names = PackedNames(listing.names)
    labelled = label_by_folder(listing.names, (name for name in classes if not is_hidden(name)))
    return Contents(Files(path, names), names, labelled, listing.bad_files, splits=tuple(parts))


def archive_splits(path: Path) -> tuple[str, ...]:
    """Return the parts that an archive comes in, by the names in it."""
    index = archives.list_archive(path, max_bytes=None)
    names = [member.name for member in index.members]
    return tuple(_parts(names, _common_folder(names)))


def open_archive(path: Path, split: str | None, *, max_bytes: int) -> Contents:
    """Return the pictures of an archive, or of its part to train on.

    Raises:
        ValueError: If it is damaged from the start, above the limits, or without pictures.
    """
    index = archives.list_archive(path, max_bytes=max_bytes)
    names = [member.name for member in index.members]
    if not names:
        faults = "".join(f"\n  {bad.name!r}: {bad.reason}" for bad in index.bad_files[:3])
        raise ValueError(f"{path} holds no picture that can be read{faults}")
    root = _common_folder(names)
    parts = _parts(names, root)
    check_split(str(path), split, tuple(parts))
    classes: set[str] = set()
    if parts:
        inside = [name[len(root) :].split("/") for name in names]
        classes = {folders[1] for folders in inside if len(folders) == 3}
        root += parts[split or "train"] + "/"
        members = [member for member in index.members if member.name.startswith(root)]
        index = index._replace(members=members)
        names = [member.name for member in members]
    labelled = label_by_folder([name[len(root) :] for name in names], classes)
    reader, packed = Archive(path, index), PackedNames(names)
    return Contents(reader, packed, labelled, index.bad_files, splits=tuple(parts))


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that all members lie in, as an archive of a folder has one."""
    if not names:
        return ""
    # the first and the last by name have in common what all have
    folder = os.path.commonpath([os.path.dirname(min(names)), os.path.dirname(max(names))])
    return f"{folder}/" if folder else ""


def _parts(names: Sequence[str], root: str) -> dict[str, str]:
    inside = [name[len(root) :].partition("/") for name in names]
    if not all(slash for _, slash, _ in inside):
        return {}
    return split_folders({folder for folder, _, _ in inside})


def _what_else(listing: Listing) -> str:
    if listing.bad_files:
        faults = "".join(f"\n  {bad.name!r}: {bad.reason}" for bad in listing.bad_files[:3])
        return f" that can be read:{faults}"
    suffixes = listing.other_suffixes
    if not suffixes:
        return ": it is empty"
    commonest = ", ".join(
        f"{suffix or 'no suffix'} ({count})" for suffix, count in suffixes.most_common(4)
    )
    return f", but files ending in {commonest}. Pictures end in {', '.join(SUFFIXES)}"
