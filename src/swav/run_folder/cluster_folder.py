"""A folder of links to pictures, one folder a cluster, as file managers show it."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from swav.config import UsageError
from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically

LONGEST_STEM = 50
"""Characters of a file name that are kept: each may take 4 of the 255 bytes allowed."""
_MADE = re.compile(r"\d{4,}[^/]*/\d{4,}_[^/]*")

logger = logging.getLogger(__name__)


class Member(NamedTuple):
    """A picture of a cluster."""

    name: str
    file: Path | None
    """None if it is no file of its own, such as in an archive."""
    png: Callable[[], bytes]


def is_folder(path: str | Path) -> bool:
    """Return whether clusters go into a folder: it is there, or its name ends with a slash."""
    return str(path).endswith(("/", os.sep)) or Path(path).is_dir()


def check_cluster_folder(folder: Path) -> None:
    """Raise a ValueError unless the folder is new, empty or of an earlier call."""
    if folder.exists() and any(folder.iterdir()) and not (folder / layout.LINKS).exists():
        raise UsageError(f"{folder} holds other things than clusters: name a new folder")


def write_links(
    folder: Path, clusters: Mapping[int, Sequence[Member]], called: Mapping[int, str]
) -> None:
    """Write a folder for each cluster with a link to each member, in their order, and their list.

    What the list of an earlier call names is removed, nothing else. A picture that is no file, or
    a file where links cannot be made, is copied.

    Args:
        folder: for all of them.
        clusters: the members of each.
        called: what clusters are called, as far as they have names.

    Raises:
        ValueError: if another file is in the way.
    """
    _remove_links(folder)
    planned = {
        f"{_folder_name(cluster, called)}/{_file_name(rank, member)}": member
        for cluster, members in clusters.items()
        for rank, member in enumerate(members)
    }
    # first, so that what an interrupted call leaves is known
    write_atomically(folder / layout.LINKS, "".join(f"{name}\n" for name in planned))
    copies = sum(not _put(member, folder / name) for name, member in planned.items())
    if copies:
        logger.warning("%s: %d pictures are copies, as they cannot be linked to", folder, copies)


def _folder_name(cluster: int, called: Mapping[int, str]) -> str:
    return f"{cluster:04d} {_safe(called.get(cluster, ''))}".rstrip()


def _file_name(rank: int, member: Member) -> str:
    # the number keeps the order, and names such as .. or -rf out of the way
    name = f"{rank:04d}_{_safe(Path(member.name).name)}"
    return name if member.file is not None else f"{name}.png"


def _put(member: Member, path: Path) -> bool:
    """Link to a picture or else copy it; return whether it is a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):  # a copy would go through a link into somebody's picture
        raise UsageError(f"{path} is in the way: remove it, or name a new folder")
    if member.file is None:
        path.write_bytes(member.png())
        return False
    target = Path(os.path.abspath(member.file))
    try:
        path.symlink_to(target)
    except OSError:  # some file systems have no links
        shutil.copy2(target, path)
        return False
    return True


def _remove_links(folder: Path) -> None:
    """Remove what the list of an earlier call names; what people put beside it stays."""
    listed = folder / layout.LINKS
    made = listed.read_text("utf-8").splitlines() if listed.exists() else []
    for path in [folder / name for name in made if _MADE.fullmatch(name)]:
        path.unlink(missing_ok=True)
    for inside in {(folder / name).parent for name in made if _MADE.fullmatch(name)}:
        if inside.is_dir() and not any(inside.iterdir()):
            inside.rmdir()


def _safe(name: str) -> str:
    """Return a name that any file system takes: letters, digits and a few signs."""
    kept = re.sub(r"[^\w .()+-]", "_", name.encode("utf-8", "replace").decode())
    stem, suffix = os.path.splitext(kept)
    return f"{stem[:LONGEST_STEM]}{suffix[:8]}".strip(" .")
