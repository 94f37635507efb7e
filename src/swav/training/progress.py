"""What a training says while it goes on: metrics, progress, warnings."""

import logging
import time
from contextlib import ExitStack

from swav.engine import Clock, StepOutput
from swav.engine.divergence import collapse
from swav.run_folder.bad_files import check_bad_files
from swav.run_folder.metrics_log import MetricsLog, Progress
from swav.training.session import Session

logger = logging.getLogger(__name__)


class Reporter:
    """Writes what a step has to say; rank 0 alone speaks. Use it as a context manager."""

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

    def __enter__(self) -> "Reporter":
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
        if self._has_warned or not {"ln_k", "prototypes_used"} <= values.keys():
            return
        warning = collapse(
            clock,
            loss=values["loss"],
            ln_k=values["ln_k"],
            prototypes_used=values["prototypes_used"],
            has_epsilon=hasattr(self._session.config.method, "epsilon"),
        )
        if warning:
            logger.warning(warning)
            self._has_warned = True
