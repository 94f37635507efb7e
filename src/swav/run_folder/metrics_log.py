"""``metrics.jsonl``: the numbers of a training, a JSON object a line; TensorBoard files."""

import importlib.util
import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from swav.run_folder import layout
from swav.run_folder.atomic import append_whole, write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Number = float | None
"""A number as JSON knows it: one that is not finite is None."""

logger = logging.getLogger(__name__)


class MetricsLog:
    """One JSON object a line in ``metrics.jsonl``, and TensorBoard files if asked for.

    A line is there as a whole or not at all. A disk that cannot be written to is reported once
    and does not stop the run. Use it as a context manager, on one rank.
    """

    def __init__(self, run_folder: Path, *, tensorboard: bool = False) -> None:
        if tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "tensorboard is not installed: pip install 'swav[tensorboard]', or leave out "
                f"--tensorboard ({layout.METRICS} is written in any case)"
            )
        self._path = run_folder / layout.METRICS
        self._tensorboard_folder = run_folder / layout.TENSORBOARD if tensorboard else None
        self._tensorboard: SummaryWriter | None = None
        self._has_failed = False

    def __enter__(self) -> "MetricsLog":
        """Return itself; files are made by the first line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the TensorBoard files; lines of JSON are on disk already."""
        if self._tensorboard is not None:
            with suppress(OSError):
                self._tensorboard.close()

    def truncate_to(self, step: int) -> None:
        """Forget what comes after ``step``, so that a resumed run has each step once.

        A last line that a kill left half written goes too.
        """
        if not self._path.exists():
            return
        try:
            lines = self._path.read_bytes().splitlines()
            kept = [line + b"\n" for line in lines if _step_of(line) <= step]
            write_atomically(self._path, b"".join(kept))
        except OSError as error:
            self._report(error)

    def write(self, values: Mapping[str, float | Tensor]) -> None:
        """Append one line; ``values`` has a ``step``. Numbers that are not finite become null."""
        numbers = {name: _number(value) for name, value in values.items()}
        line = json.dumps(numbers, allow_nan=False).encode() + b"\n"
        try:
            append_whole(self._path, line)
            self._write_tensorboard(numbers)
        except OSError as error:
            self._report(error)

    def _write_tensorboard(self, numbers: Mapping[str, Number]) -> None:
        if self._tensorboard_folder is None:
            return
        step = numbers["step"]
        assert isinstance(step, int)
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter  # an extra

            # TensorBoard keeps events of steps that a killed run has to do again, unless told
            self._tensorboard = SummaryWriter(str(self._tensorboard_folder), purge_step=step)
        for name, number in numbers.items():
            if number is not None and name != "step":
                self._tensorboard.add_scalar(name, number, step)

    def _report(self, error: OSError) -> None:
        if not self._has_failed:
            logger.warning(
                "cannot write %s (%s): training goes on, its numbers are not written down until "
                "this works again",
                self._path,
                error,
            )
        self._has_failed = True


def _number(value: float | Tensor) -> Number:
    number: float = value.item() if isinstance(value, Tensor) else value
    # JSON has no NaN (RFC 8259): jq, JavaScript and others refuse a line with one
    return number if math.isfinite(number) else None


def _step_of(line: bytes) -> float:
    """Return the step of a line, infinity if it is not a whole one."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf
    return step if isinstance(step, int) else math.inf
