"""``config.yaml``: every setting of a run as plain values, whatever version wrote it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swav.config import read_yaml, write_yaml
from swav.run_folder import layout
from swav.run_folder.atomic import replacing
from swav.run_folder.migrations import SCHEMA, migrate_config


def read_config(path: Path) -> Any:
    """Return the values of a run's config, or of one that a person wrote, in the present form.

    Raises:
        ValueError: naming the file, if it is not YAML or a later version wrote it.
    """
    try:
        return migrate_config(read_yaml(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_config(run_folder: Path, values: Mapping[str, Any]) -> None:
    """Write all settings into a run folder."""
    # the number stands in the file itself: it is copied, and given to --config, without run.json
    with replacing(run_folder / layout.CONFIG) as unfinished:
        write_yaml({"schema": SCHEMA, **values}, unfinished)
