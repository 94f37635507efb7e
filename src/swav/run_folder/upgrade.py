"""A run folder of an earlier version in the present form, for a run that goes on in it."""

import json
from contextlib import suppress
from pathlib import Path

from swav.config import read_yaml
from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically
from swav.run_folder.config_file import read_config, write_config
from swav.run_folder.migrations import SCHEMA, schema_of
from swav.run_folder.readers import Absent, present_path, read_result
from swav.run_folder.record import read_record, write_record


def upgrade(run_folder: Path) -> None:
    """Write what an earlier version wrote in the present form; call it holding the run's lock."""
    config = run_folder / layout.CONFIG
    if not config.exists():
        return
    if schema_of(read_yaml(config.read_text(encoding="utf-8"))) < SCHEMA:
        write_config(run_folder, read_config(config))
        if read_record(run_folder):
            write_record(run_folder)
    for path in sorted((run_folder / layout.EVALUATIONS).glob("*.json")):
        with suppress(Absent):  # damaged: the report names it
            _rename_result(path)


def _rename_result(path: Path) -> None:
    """Put a result under the present name of its task, unless a later one is there."""
    result = read_result(path)
    present = present_path(path, result)
    if present != path:
        if not present.exists():
            write_atomically(present, json.dumps(result, indent=2) + "\n")
        path.unlink()
