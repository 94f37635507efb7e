"""Checkpoints that outlive a kill at any moment: written aside, synced, hashed, published whole."""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from swav.run_folder import layout
from swav.run_folder.layout import DAMAGED, MANIFEST, META, REPLACED, STATE, STEP
from swav.run_folder.state import CheckpointError

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "NewerSchemaError",
    "load_checkpoint",
    "newest_checkpoint",
    "save_checkpoint",
]

SCHEMA = 1
CHUNK_BYTES = 16 * 2**20
MANIFEST_BYTES = 2**16
"""A manifest is never longer; a file that is was not written by us."""

_NAME = re.compile(rf"{re.escape(STEP)}\d{{8,}}({re.escape(REPLACED)})?")

logger = logging.getLogger(__name__)


class NewerSchemaError(CheckpointError):
    """A checkpoint is whole, but from a later version of this package."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on from ``step``."""

    step: int
    folder: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_checkpoint(
    run_folder: Path,
    *,
    step: int,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Publish ``checkpoints/step-<step>`` and return it; one of the same step is replaced.

    Files are written into a hidden sibling folder and synced, the manifest with their hashes
    last; one rename publishes them. Whatever happens before it, the checkpoints of earlier steps
    stay valid. Older ones are pruned down to ``keep`` afterwards. ``meta`` comes back as JSON
    gives it: tuples as lists. Call it on one rank, holding the run's lock.

    Raises:
        OSError: if it could not be written (disk full, read-only, ...). Nothing is left behind,
            the checkpoints before are as they were, and a later attempt may succeed.
    """
    assert keep >= 2, "the newest checkpoint alone is one bad sector away from none"
    contents = {
        STATE: safetensors.torch.save(dict(tensors)),
        META: json.dumps(dict(meta), indent=1).encode(),
    }
    contents[MANIFEST] = _manifest(step, contents)
    folder = run_folder / layout.CHECKPOINTS
    if not folder.is_dir():
        folder.mkdir(parents=True)
        _sync_folder(run_folder)
    _sweep(folder)
    _make_room(folder, sum(len(content) for content in contents.values()))
    temporary = folder / _hidden_name(f"{step:08d}")
    target = layout.checkpoint(run_folder, step)
    try:
        temporary.mkdir()
        for name, content in contents.items():
            _write(temporary / name, content)
        _sync_folder(temporary)
        if target.exists():
            # a kill between the two renames leaves the .old one, which counts as a checkpoint
            replaced = target.with_name(f"{target.name}{REPLACED}")
            _remove(replaced)
            os.rename(target, replaced)
        os.rename(temporary, target)
        _sync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        _prune(folder, published=target, keep=keep)
    except OSError as error:
        logger.warning("could not prune %s: %s", folder, error)
    return target


def newest_checkpoint(run_folder: Path, *, repair: bool = True) -> Checkpoint | None:
    """Return the newest valid checkpoint, or None if the run has written none yet.

    A damaged one is logged and renamed ``*.bad``, and the one before it is taken. Call it on one
    rank, holding the run's lock; other ranks read what it chose with ``load_checkpoint``. Whoever
    only reads, without the lock, says ``repair=False``: nothing is renamed.

    Raises:
        CheckpointError: if there are checkpoints and none can be used. A run never starts anew
            in silence.
    """
    folder = run_folder / layout.CHECKPOINTS
    reasons = [f"{path.name}: found damaged before" for path in sorted(folder.glob(f"*{DAMAGED}"))]
    for candidate in _checkpoints(folder):
        try:
            checkpoint = load_checkpoint(candidate)
        except NewerSchemaError:
            raise  # it is whole: going on from an earlier one would lose its steps in silence
        except (CheckpointError, OSError) as error:
            logger.warning("%s; trying the checkpoint before it", error)
            reasons.append(f"{candidate.name}: {error}")
            # a disk that cannot be read now may hold it whole: only what was read is damaged
            if repair and isinstance(error, CheckpointError):
                _rename(candidate, candidate.with_name(f"{candidate.name}{DAMAGED}"))
        else:
            if repair and candidate.suffix == REPLACED:
                renamed = _rename(candidate, candidate.with_suffix(""))
                checkpoint = replace(checkpoint, folder=renamed)
            return checkpoint
    if reasons:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used:\n  " + "\n  ".join(reasons) + "\n"
            "Restore one from a backup, or start a new run with another --out."
        )
    return None


def load_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint in ``folder`` after checking sizes and hashes of all its files.

    Raises:
        CheckpointError: if a file is missing or is not what was written.
        NewerSchemaError: if a later version wrote it.
    """
    step, entries = _read_manifest(folder)
    contents = {}
    for name, (size, digest) in entries.items():
        content = contents[name] = _read(folder / name)
        if len(content) != size:
            raise CheckpointError(
                f"{folder / name} has {len(content)} bytes, {MANIFEST} says {size}"
            )
        # safetensors checks its header, not the numbers: a flipped bit would be trained on
        if hashlib.sha256(content).hexdigest() != digest:
            raise CheckpointError(f"{folder / name} has not the SHA-256 that {MANIFEST} says")
    try:
        tensors = safetensors.torch.load(contents[STATE])
        meta = json.loads(contents[META])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    return Checkpoint(step=step, folder=folder, tensors=tensors, meta=meta)


def _manifest(step: int, contents: Mapping[str, bytes]) -> bytes:
    files = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    manifest = {"schema": SCHEMA, "step": step, "files": files}
    return json.dumps({**manifest, "digest": digest_of(manifest)}, indent=1).encode()


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return what a manifest says of itself: a flipped digit is not a later version's number."""
    signed = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(signed, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> tuple[int, dict[str, tuple[int, str]]]:
    """Return the step, and the size and hash of each file."""
    content = _read(folder / MANIFEST)
    try:
        if len(content) > MANIFEST_BYTES:
            raise ValueError(f"longer than {MANIFEST_BYTES} bytes")
        manifest = json.loads(content)
        if manifest.get("digest", digest_of(manifest)) != digest_of(manifest):
            raise ValueError("its digest is another")
        if manifest["schema"] > SCHEMA:
            raise NewerSchemaError(
                f"{folder} was written by a later version of swav (schema "
                f"{manifest['schema']}, this one reads up to {SCHEMA}): upgrade swav to continue"
            )
        files = manifest["files"]
        entries = {name: (files[name]["size"], files[name]["sha256"]) for name in (STATE, META)}
        if manifest["schema"] < 1 or manifest["step"] != _step_of(folder):
            raise ValueError(f"schema {manifest['schema']}, step {manifest['step']}")
        # those of earlier versions have no digest
        if manifest.keys() - {"digest"} != {"schema", "step", "files"}:
            raise ValueError(f"keys {', '.join(manifest)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is not its manifest: {error!r}") from error
    return manifest["step"], entries


def _checkpoints(folder: Path) -> list[Path]:
    """Return what looks like a checkpoint, newest first; a replaced one after its successor."""
    folders = [path for path in folder.glob(f"{STEP}*") if _NAME.fullmatch(path.name)]
    return sorted(folders, key=lambda path: (-_step_of(path), path.suffix))


def _step_of(folder: Path) -> int:
    return int(folder.name.removesuffix(REPLACED).removeprefix(STEP))


def _prune(folder: Path, *, published: Path, keep: int) -> None:
    """Remove all but the newest steps, never the one just published."""
    kept = {_step_of(published)}
    for path in _checkpoints(folder):
        step = _step_of(path)
        superseded = path.suffix == REPLACED and path.with_suffix("").exists()
        if not superseded and (step in kept or len(kept) < keep):
            kept.add(step)
        else:
            _remove(path)


def _make_room(folder: Path, size: int) -> None:
    """Remove the oldest checkpoints beyond two while the disk lacks room for a new one."""
    needed = int(1.2 * size)
    for path in [*reversed(_checkpoints(folder)[2:]), None]:
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if free >= needed or not disk.f_blocks:  # some network disks do not tell
            return
        if path is not None:
            _remove(path)
    message = f"{free / 1e6:.1f} MB free, the checkpoint needs {needed / 1e6:.1f} MB"
    raise OSError(errno.ENOSPC, message, str(folder))


def _hidden_name(what: str) -> str:
    return f".tmp-{what}-{secrets.token_hex(4)}"


def _remove(folder: Path) -> None:
    """Make a checkpoint vanish at once, then delete its files; failing is only a warning."""
    try:
        if folder.exists():
            hidden = folder.with_name(_hidden_name("removed"))
            os.rename(folder, hidden)
            shutil.rmtree(hidden)
    except OSError as error:
        logger.warning("could not remove the old checkpoint %s: %s", folder, error)


def _rename(folder: Path, to: Path) -> Path:
    """Rename a checkpoint and return where it is; failing is only a warning."""
    try:
        _remove(to)
        os.rename(folder, to)
    except OSError as error:
        logger.warning("could not rename the checkpoint %s: %s", folder, error)
        return folder
    return to


def _sweep(folder: Path) -> None:
    """Delete what killed runs left; the caller holds the lock, so nobody is writing them."""
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    # the user's umask decides who may read it, as for all other files of the run
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:  # Linux takes at most 2 GiB in one write, a full disk less than it was given
            rest = rest[os.write(descriptor, rest[:CHUNK_BYTES]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not offered by some network disks
            raise
    finally:
        os.close(descriptor)
