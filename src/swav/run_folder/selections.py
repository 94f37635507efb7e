"""What people say of a run's pictures: names of clusters, and selections, written to its folder."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically
from swav.run_folder.clusterings import is_clustering, name_rows, read_cluster_names

LONGEST_NAME = 80
_FILE_NAME = re.compile(r"\w[\w .-]*\w|\w")


def write_cluster_names(run_folder: Path, clustering: str, names: Mapping[int, str]) -> Path:
    """Write ``names.csv`` with these names; those of other clusterings stay.

    Raises:
        ValueError: if the file is damaged, or a name is too long or no line of text.
    """
    path = run_folder / layout.NAMES
    if not is_clustering(clustering):
        raise ValueError(f"clusters of {clustering!r} cannot be named")
    for number, name in names.items():
        if number < 0 or len(name) > LONGEST_NAME or not (name.isprintable() or not name):
            raise ValueError(f"cluster {number}: a name is one line of at most {LONGEST_NAME}")
    read_cluster_names(run_folder, clustering)  # a damaged file is refused, not replaced
    others = [
        (row["clustering"].strip(), row["cluster"].strip(), row["name"] or "")
        for row in (name_rows(path) if path.exists() else [])
        if row["clustering"].strip() != clustering
    ]
    own = [(clustering, str(number), name) for number, name in sorted(names.items()) if name]
    write_atomically(path, _csv(("clustering", "cluster", "name"), [*others, *own]))
    return path


def write_selection(run_folder: Path, name: str, rows: Sequence[tuple[str, str]]) -> Path:
    """Write ``selections/NAME.csv``: path and cluster of each picture.

    Raises:
        ValueError: if the name cannot be that of a file everywhere.
    """
    if len(name) > LONGEST_NAME or not _FILE_NAME.fullmatch(name):
        raise ValueError(
            f"selection {name!r}: take letters, digits, spaces, - . and _, at most {LONGEST_NAME}"
        )
    path = layout.selection(run_folder, name)
    write_atomically(path, _csv(("path", "cluster"), rows))
    return path


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()
