"""Lists of pictures: one path a line, or a CSV file with a column ``path`` and a few others.

``label`` is for evaluation alone; ``group`` and ``time`` can say which pictures are views of each
other (``swav.data.sources.groups``).
"""

import csv
import os
from difflib import get_close_matches
from pathlib import Path

from swav.data.sources.listing import Labels, PackedNames, number
from swav.data.sources.readers import Contents, Files

SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
_KEPT_COLUMNS = ("group", "time")


def open_list(path: Path) -> Contents:
    """Return the pictures that a list names; relative paths start at the list's own folder.

    Raises:
        ValueError: If it names none, or has no column ``path``.
    """
    labelled: Labels | None = None
    columns: dict[str, PackedNames] = {}
    if path.suffix.lower() in (".csv", ".tsv"):
        names, labelled, columns = _read_csv(path)
    else:
        # spreadsheets write a byte order mark; file names may be of any encoding
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            # not stripped: a file name may end in a blank
            lines = [line.rstrip("\r\n") for line in file]
        names = [line for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise ValueError(f"{path} names no picture: write one path a line")
    # as a shell would: files that are really called so are given as ./~
    packed = PackedNames(
        os.path.expanduser(name) if name.startswith("~/") else name for name in names
    )
    return Contents(Files(path.parent, packed), packed, labelled, columns=columns)


def _read_csv(path: Path) -> tuple[list[str], Labels | None, dict[str, PackedNames]]:
    try:
        return _read_table(path)
    except csv.Error as error:
        raise ValueError(
            f"{path} cannot be read as a table ({error}): is a quotation mark left open?"
        ) from error


def _read_table(path: Path) -> tuple[list[str], Labels | None, dict[str, PackedNames]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        table = csv.DictReader(file, delimiter=delimiter)
        # people write "path, label"
        columns = table.fieldnames = [name.strip() for name in table.fieldnames or ()]
        if "path" not in columns:
            close = get_close_matches("path", columns, n=1, cutoff=0.5)
            hint = f" (is it {close[0]!r}?)" if close else ""
            raise ValueError(
                f"{path} has the columns {columns}, none of them 'path'{hint}: its first line "
                "must name them, 'path' and if there are labels 'label'"
            )
        rows = [row for row in table if row["path"]]
    names = [row["path"] for row in rows]
    kept = {
        column: PackedNames(row[column] or "" for row in rows)
        for column in _KEPT_COLUMNS
        if column in columns
    }
    if "label" not in columns:
        return names, None, kept
    labels = [row["label"] or "" for row in rows]
    if "" in labels:
        raise ValueError(
            f"{path} gives no label for {names[labels.index('')]!r}: label every picture, or "
            "leave the column 'label' out"
        )
    return names, number(labels), kept
