"""Rows of a CSV file that a benchmark appends as it makes them, and finds again when it goes on."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a file that have all ``needed`` columns, none if it is not there yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.get(name) for name in needed)]


def append(path: Path, row: Mapping[str, object], columns: Sequence[str]) -> None:
    """Add a row to a file; a row that an interruption cut short ends in its own line."""
    text = path.read_text() if path.exists() else ""
    with path.open("a", newline="") as file:
        if text and not text.endswith("\n"):
            file.write("\n")
        writer = csv.DictWriter(file, columns)
        if not text:
            writer.writeheader()
        writer.writerow(row)


def mean_and_spread(rows: Sequence[Mapping[str, str]], column: str, *, digits: int) -> str:
    """Return mean and spread of a column; a dash where it has nothing."""
    values = [float(row[column]) for row in rows if row[column]]
    if not values:
        return "-"
    spread_of = f" +- {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread_of}"
