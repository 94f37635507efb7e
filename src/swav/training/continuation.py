"""Whether a folder can take a run: as a new one, or one that goes on under the same settings."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import swav.config
from swav.data.sources.pictures import Pictures
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.run_folder import layout
from swav.run_folder.record import IMPORTED, read_record

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = (
    "log_every",
    "save_every",
    "evaluate_every",
    "evaluate_at_end",
    "keep",
    "workers",
    "tensorboard",
    "data.data",
    "data.cache_gib",
)
"""Settings that may differ when a run is continued: they do not change what is learned."""


def check_folder(folder: Path, config: TrainConfig, pictures: Pictures, *, resume: bool) -> None:
    """Refuse a folder that cannot take this run. Call it on one rank, holding the lock.

    Raises:
        ValueError: if it holds a run that is not to be continued, or one of other settings.
    """
    stored = folder / layout.CONFIG
    if not resume and (stored.exists() or (folder / layout.CHECKPOINTS).exists()):
        raise ValueError(
            f"{folder} already holds a run: continue it with --resume, or choose another --out"
        )
    if stored.exists():
        check_same_settings(read_train_config(stored), config)
    _check_pictures(read_record(folder), pictures)


def _check_pictures(record: Mapping[str, Any], pictures: Pictures) -> None:
    """Refuse to continue a run on other pictures; the same ones may have moved."""
    before, num_images = record.get("num_images"), len(pictures)
    if before not in (None, num_images):
        raise ValueError(
            f"the run to continue learns from {before} pictures, {pictures.data} now has "
            f"{num_images}: bring the others back, or start a new run with another --out"
        )
    known = record.get("fingerprint")  # runs of earlier versions have none
    if known not in (None, pictures.fingerprint):
        raise ValueError(
            f"the {num_images} pictures of {pictures.data} are not those that the run to continue "
            f"learns from ({record.get('data')}): their names, sizes or contents differ. Bring "
            "the others back, or start a new run with another --out (--init RUN keeps the weights)"
        )


def check_same_settings(stored: TrainConfig, given: TrainConfig) -> None:
    """Refuse to continue a run under settings that change what it learns.

    Raises:
        ValueError: naming what was changed.
    """
    changed = {
        path: values
        for path, values in swav.config.differences(stored, given).items()
        if not path.startswith(FREE_TO_CHANGE)
    }
    if changed:
        listed = "; ".join(
            f"{path} was {old!r}, now {new!r}" for path, (old, new) in changed.items()
        )
        raise ValueError(
            f"the run to continue has other settings ({listed}): leave these options out, or "
            "start a new run with another --out (--init RUN keeps the weights)"
        )


def check_step(folder: Path, record: Mapping[str, Any], step: int) -> None:
    """Refuse a finished run that has lost its last state, and say which one is opened else."""
    made_at, status = record.get("outputs_step"), record.get("status")
    if status not in ("finished", IMPORTED):
        outputs = "" if made_at is None else f"; its outputs are of step {made_at}"
        logger.warning(
            "%s is not finished (status %s): opened at step %d%s", folder, status, step, outputs
        )
    elif made_at not in (None, step):
        lost = layout.checkpoint(folder, made_at).relative_to(folder)
        raise ValueError(
            f"{folder} finished at step {made_at}, but its newest checkpoint that can be read is "
            f"of step {step}, not what its {layout.MODEL}/ and embeddings were made of: restore "
            f"{lost} from a backup, or train the rest again with swav train --resume --out "
            f"{folder} ({folder / layout.MODEL} alone opens with timm)"
        )
