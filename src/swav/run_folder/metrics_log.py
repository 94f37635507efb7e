"""What a run writes while it runs: ``metrics.jsonl``, TensorBoard files, progress on stderr."""

import importlib.util
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text
from torch import Tensor

from swav.engine.objective import Clock

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"
PLAIN_EVERY_SECONDS = 10.0

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
                f"--tensorboard ({METRICS} is written in any case)"
            )
        self._path = run_folder / METRICS
        self._tensorboard_folder = run_folder / "tensorboard" if tensorboard else None
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
        aside = self._path.with_suffix(".tmp")
        try:
            lines = self._path.read_bytes().splitlines()
            kept = [line + b"\n" for line in lines if _step_of(line) <= step]
            aside.write_bytes(b"".join(kept))
            os.replace(aside, self._path)
        except OSError as error:
            self._report(error)

    def write(self, values: Mapping[str, float | Tensor]) -> None:
        """Append one line; ``values`` has a ``step``. Numbers that are not finite become null."""
        numbers = {name: _number(value) for name, value in values.items()}
        line = json.dumps(numbers, allow_nan=False).encode() + b"\n"
        try:
            _append(self._path, line)
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


class Progress:
    """How far the run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(
        self,
        clock: Clock,
        *,
        every_seconds: float = PLAIN_EVERY_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = clock
        self._now = now
        self._start_time = now()
        self._every_seconds = every_seconds
        self._last_line_time = -math.inf
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        """Show the bar if stderr is a terminal."""
        console = Console(stderr=True)
        if sys.stderr.isatty() and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                auto_refresh=False,  # no thread, so that workers can be forked at any time
                redirect_stdout=False,  # results go to stdout as they are
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is and the cursor below it."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()

    def update(self, clock: Clock, values: Mapping[str, float | Tensor]) -> None:
        """Show the position and the numbers of a line of ``metrics.jsonl``."""
        numbers = _describe(clock, values, seconds_left=self._seconds_left(clock))
        text = f"step {clock.step}/{clock.total_steps}  {numbers}"
        with suppress(OSError):  # a terminal that went away is no reason to stop
            if self._live is not None:
                bar = ProgressBar(total=clock.total_steps, completed=clock.step)
                self._live.update(Group(Text(text), bar), refresh=True)
            elif self._is_line_due(clock):
                self._last_line_time = self._now()
                print(text, file=sys.stderr, flush=True)

    def _is_line_due(self, clock: Clock) -> bool:
        waited = self._now() - self._last_line_time
        return waited >= self._every_seconds or clock.step >= clock.total_steps

    def _seconds_left(self, clock: Clock) -> float | None:
        steps = clock.step - self._start.step
        if steps <= 0:
            return None
        return (clock.total_steps - clock.step) * (self._now() - self._start_time) / steps


def _describe(
    clock: Clock, values: Mapping[str, float | Tensor], *, seconds_left: float | None
) -> str:
    """Return the numbers that there are, as one line for people."""
    shown = {name: float(value) for name, value in values.items()}
    parts = [f"epoch {clock.epoch}"]
    if "loss" in shown:
        gap = shown["ln_k"] - shown["loss"] if "ln_k" in shown else math.nan
        below = f" ({gap:.3f} below ln K)" if math.isfinite(gap) else ""
        parts.append(f"loss {shown['loss']:.3f}{below}")
    if "code_entropy" in shown:
        parts.append(f"code entropy {shown['code_entropy']:.2f}")
    if "prototypes_used" in shown:
        parts.append(f"prototypes used {shown['prototypes_used']:.0%}")
    if "images_per_second" in shown:
        parts.append(f"{shown['images_per_second']:.0f} images/s")
    if seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(seconds_left))} left")
    return "  ".join(parts)


def _number(value: float | Tensor) -> Number:
    number: float = value.item() if isinstance(value, Tensor) else value
    return number if math.isfinite(number) else None


def _step_of(line: bytes) -> float:
    """Return the step of a line, infinity if it is not a whole one."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf
    return step if isinstance(step, int) else math.inf


def _append(path: Path, line: bytes) -> None:
    """Append a whole line, or raise OSError and leave the file as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"only a part of a line fitted into {path}")
    finally:
        os.close(descriptor)
