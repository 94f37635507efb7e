"""``run.json``: what a run is, where and when it ran, and how it ended."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically
from swav.run_folder.migrations import SCHEMA, migrate_record

IMPORTED = "imported"
"""Status of a folder made of the weights of others: what they were trained on is not there."""


def read_record(run_folder: Path) -> dict[str, Any]:
    """Return ``run.json`` in the present form, or nothing where there is none yet.

    Raises:
        ValueError: if the file is damaged, or a later version wrote it.
    """
    path = run_folder / layout.RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged_record(run_folder, f"is not whole JSON ({error})") from error
    if not isinstance(record, dict):
        raise damaged_record(run_folder, "is no JSON object")
    try:
        return migrate_record(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def is_imported(run_folder: Path) -> bool:
    """Return whether a folder was made of the weights of others, without a training."""
    return read_record(run_folder).get("status") == IMPORTED


def hands_out_start(record: Mapping[str, Any]) -> bool:
    """Return whether the model of a run is the network that it started from."""
    guard = record.get("guard")
    return isinstance(guard, dict) and guard.get("handed_out") == "start"


def check_continuable(run_folder: Path) -> None:
    """Raise a ValueError if there is no training in a folder that could go on."""
    if is_imported(run_folder):
        raise ValueError(
            f"{run_folder} was imported: there is no training in it to continue. Start one from "
            f"its weights: swav train DATA --init {run_folder}"
        )


def damaged_record(run_folder: Path, fault: str) -> ValueError:
    """Return what to raise for a record that is damaged or missing: the file and the remedy."""
    return ValueError(
        f"{run_folder / layout.RECORD} {fault}: restore it from a backup, or remove it and run "
        f"swav train --resume --out {run_folder}, which writes it again"
    )


def write_record(run_folder: Path, **changes: Any) -> None:
    """Change values of ``run.json``."""
    record = {"schema": SCHEMA, **read_record(run_folder), **changes}
    write_atomically(run_folder / layout.RECORD, json.dumps(record, indent=2) + "\n")


def now() -> str:
    """Return the time as the record writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
