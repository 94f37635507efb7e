"""What a training writes down and shows while it goes on: metrics, progress, warnings."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta

from torch import Tensor

from swav.engine import Clock, StepOutput
from swav.engine.divergence import collapse
from swav.run_folder.bad_files import check_bad_files
from swav.run_folder.metrics_log import MetricsLog
from swav.training.bar import PLAIN_EVERY_SECONDS, Bar
from swav.training.session import Session

logger = logging.getLogger(__name__)


class TrainingLog:
    """The numbers of each logged step, written by rank 0. Use it as a context manager."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._started = time.monotonic()
        self._before = session.seconds
        self._last = (self._started, session.clock.images)
        self._stack = ExitStack()
        self._log: MetricsLog | None = None
        self._progress: Progress | None = None
        self._has_warned = False

    @property
    def seconds(self) -> float:
        """Spent in training, earlier sessions included."""
        return self._before + time.monotonic() - self._started

    def __enter__(self) -> "TrainingLog":
        """Open the log, cut back to where the run is."""
        session = self._session
        if session.fabric.is_global_zero:
            log = MetricsLog(session.folder, tensorboard=session.config.tensorboard)
            self._log = self._stack.enter_context(log)
            self._log.truncate_to(session.clock.step)
            self._progress = self._stack.enter_context(Progress(session.clock))
        return self

    def __exit__(self, *_: object) -> None:
        """Close the log and leave the progress as it is."""
        self._stack.close()

    def log(self, output: StepOutput, accuracy: dict[str, float]) -> None:
        """Write a line of ``metrics.jsonl`` and move the progress.

        Raises:
            ValueError: if more pictures than allowed turned out to be unreadable by now.
        """
        session, clock = self._session, self._session.clock
        check_bad_files(session.folder, session.config.data, num_listed=session.num_listed)
        if self._log is None or self._progress is None:
            return
        now = time.monotonic()
        speed = (clock.images - self._last[1]) / max(now - self._last[0], 1e-9)
        self._last = (now, clock.images)
        values = {
            "step": clock.step,
            "epoch": clock.epoch,
            "images": clock.images,
            "seconds": round(self.seconds, 3),
            "loss": float(output.loss),
            "lr": float(session.optimizer.param_groups[0]["lr"]),
            "images_per_second": round(speed, 1),
            **{name: float(value) for name, value in output.metrics.items()},
            **accuracy,
        }
        self._log.write(values)
        self._progress.update(clock, values)
        self._warn_of_collapse(clock, values)

    def _warn_of_collapse(self, clock: Clock, values: dict[str, float]) -> None:
        if not {"ln_k", "prototypes_used"} <= values.keys():
            return
        warning = collapse(
            clock,
            loss=values["loss"],
            ln_k=values["ln_k"],
            prototypes_used=values["prototypes_used"],
            remedies=self._session.config.method.collapse_remedies,
        )
        if warning and not self._has_warned:
            logger.warning(warning)
        if self._has_warned and not warning:
            logger.warning(
                "step %d: the warning of a collapse is withdrawn: the loss is %.4f, ln K %.4f, and "
                "%.0f %% of the prototypes are in use",
                *(clock.step, values["loss"], values["ln_k"], 100 * values["prototypes_used"]),
            )
        self._has_warned = bool(warning)


class Progress:
    """How far the run is."""

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
        self._bar = Bar(every_seconds=every_seconds, now=now)

    def __enter__(self) -> "Progress":
        """Show the bar if stderr is a terminal."""
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.__exit__()

    def update(self, clock: Clock, values: Mapping[str, float | Tensor]) -> None:
        """Show the position and the numbers of a line of ``metrics.jsonl``."""
        numbers = _describe(clock, values, seconds_left=self._seconds_left(clock))
        text = f"step {clock.step}/{clock.total_steps}  {numbers}"
        self._bar.show(text, clock.step, clock.total_steps, last_line=True)

    def _seconds_left(self, clock: Clock) -> float | None:
        steps = clock.step - self._start.step
        if steps <= 0:
            return None
        return (clock.total_steps - clock.step) * (self._now() - self._start_time) / steps


def _describe(
    clock: Clock, values: Mapping[str, float | Tensor], *, seconds_left: float | None
) -> str:
    """Return the numbers that there are, as one line for people."""
    numbers = {name: float(value) for name, value in values.items()}
    parts = [f"epoch {clock.epoch}"]
    if "loss" in numbers:
        gap = numbers["ln_k"] - numbers["loss"] if "ln_k" in numbers else math.nan
        side = "below" if gap >= 0 else "above"
        beside = f" ({abs(gap):.3f} {side} ln K)" if math.isfinite(gap) else ""
        parts.append(f"loss {numbers['loss']:.3f}{beside}")
    if "code_entropy" in numbers:
        parts.append(f"code entropy {numbers['code_entropy']:.2f}")
    if "prototypes_used" in numbers:
        parts.append(f"prototypes used {numbers['prototypes_used']:.0%}")
    if "images_per_second" in numbers:
        parts.append(f"{numbers['images_per_second']:.0f} images/s")
    if seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(seconds_left))} left")
    return "  ".join(parts)
