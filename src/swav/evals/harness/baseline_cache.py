"""Results of baselines kept for the user, so that the same pictures are not measured in each run.

The name of a file is a digest of all that its content depends on: the task, the pictures and their
labels, the network's layers and weights, the evaluation transform, the kind of device, the versions
of the packages and the code of this one.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path

from swav.data.sources.pictures import Pictures
from swav.evals.harness.cache import weights_digest
from swav.evals.harness.subject import Subject
from swav.evals.harness.task import Task
from swav.run_folder.atomic import write_atomically
from swav.run_folder.result import Result, installed_versions

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[2]
VARIABLE = "SWAV_CACHE"
"""Of the environment: the folder of what is kept for the user; empty: nothing is kept."""
MOST_FILES = 1000
"""Of about a kilobyte; the ones that were read longest ago go first."""

ResultCache = Callable[[str, Task, Subject, Callable[[], Result]], Result]
"""Return the result of a baseline of a name: read where it is kept, computed otherwise."""


def compute_result(
    name: str, task: Task, subject: Subject, compute: Callable[[], Result]
) -> Result:
    """Return the result as it is computed."""
    del name, task, subject
    return compute()


def users_folder() -> Path | None:
    """Return where results are kept, None if they are not to be."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) / "baselines" if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "swav" / "baselines"


def kept_in(folder: Path | None) -> ResultCache:
    """Return how results are read from a folder, or computed and written there."""
    if folder is None:
        return compute_result

    digests: dict[Pictures, str] = {}

    def set_digest(pictures: Pictures) -> str:
        if pictures not in digests:
            digests[pictures] = _set_digest(pictures)
        return digests[pictures]

    def read_or_compute(
        name: str, task: Task, subject: Subject, compute: Callable[[], Result]
    ) -> Result:
        sets = (subject.data.train, subject.data.test)
        digest = _digest(
            name, task, subject, [set_digest(each) for each in sets if each is not None]
        )
        path = folder / f"{digest}.json"
        result = _read(path)
        if result is None:
            result = compute()
            _write(result, path)
        return result

    return read_or_compute


def _read(path: Path) -> Result | None:
    """Return what stands beside a network: task, protocol, metrics; None without a whole file."""
    try:
        values = json.loads(path.read_text("utf-8"))
        path.touch()
        return Result(
            task=values["task"], protocol=values["protocol"], metrics=dict(values["metrics"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(result: Result, path: Path) -> None:
    """Write the file, and remove the oldest beyond the limit; a full disk is no fault of a run."""
    kept = {"task": result.task, "protocol": result.protocol, "metrics": result.metrics}
    text = json.dumps(kept)
    if json.loads(text) != kept:  # a protocol of other than JSON values would differ when read
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        oldest_first = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in oldest_first[:-MOST_FILES]:
            file.unlink(missing_ok=True)
    except OSError as error:
        logger.info("scores of baselines are not kept in %s: %s", path.parent, error)


def _digest(name: str, task: Task, subject: Subject, sets: Sequence[str]) -> str:
    data = subject.data
    parts = [name, repr(task), data.fit_on, data.score_on, subject.device.type, _code_digest()]
    parts += sets
    if subject.backbone is not None:
        # weights alone do not tell padding, strides or activations
        parts += [repr(subject.backbone), weights_digest(subject.backbone), str(subject.transform)]
    parts += [f"{package} {version}" for package, version in installed_versions().items()]
    return blake2b("\0".join(parts).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _set_digest(pictures: Pictures) -> str:
    """Return a text that changes when a picture, its name or its label does."""
    # sizes and times of files, which the first is made of, may be those of another folder
    parts = [pictures.digest(), pictures.fingerprint, *pictures.classes]
    labels = b"" if pictures.labels is None else pictures.labels.tobytes()
    named = "\0".join(parts).encode(errors="surrogateescape")
    return blake2b(named + b"\0" + labels, digest_size=16).hexdigest()


@cache
def _code_digest() -> str:
    """Return a text that changes when a line of this package does."""
    digest = blake2b(digest_size=16)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
