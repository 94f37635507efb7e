"""``run.json``: what a run is, where and when it ran, and how it ended."""

import json
import time
from pathlib import Path
from typing import Any

from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically

SCHEMA = 2
"""Raised whenever a folder of before needs a migration (``migrations.py``)."""


def read_record(run_folder: Path) -> dict[str, Any]:
    """Return ``run.json``, or nothing where there is none yet.

    Raises:
        ValueError: if the file is damaged.
    """
    path = run_folder / layout.RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"it holds a {type(record).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): restore it from a backup, or start a new run with "
            "another --out"
        ) from error
    return record


def write_record(run_folder: Path, **changes: Any) -> None:
    """Change values of ``run.json``."""
    record = {"schema": SCHEMA, **read_record(run_folder), **changes}
    write_atomically(run_folder / layout.RECORD, json.dumps(record, indent=2) + "\n")


def now() -> str:
    """Return the time as the record writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
