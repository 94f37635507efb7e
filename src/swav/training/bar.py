"""How far a training or a pass over pictures is, on stderr."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

PLAIN_EVERY_SECONDS = 10.0


class Bar:
    """How far something is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(
        self,
        *,
        every_seconds: float = PLAIN_EVERY_SECONDS,
        now: Callable[[], float] = time.monotonic,
        first_line_at: float = -math.inf,
    ) -> None:
        self._now = now
        self._every_seconds = every_seconds
        self._last_line_time = first_line_at
        self._live: Live | None = None

    def __enter__(self) -> "Bar":
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

    def show(self, text: str, done: int, total: int, *, last_line: bool) -> None:
        """Show a line of text; with ``last_line`` in any case when all is done."""
        with suppress(OSError):  # a terminal that went away is no reason to stop
            if self._live is not None:
                bar = ProgressBar(total=total, completed=done)
                self._live.update(Group(Text(text), bar), refresh=True)
                return
            waited = self._now() - self._last_line_time
            if waited >= self._every_seconds or (last_line and done >= total):
                self._last_line_time = self._now()
                print(text, file=sys.stderr, flush=True)


class PicturesProgress:
    """How far a pass over pictures is; a short one says nothing where there is no terminal."""

    def __init__(self, total: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._now = now
        self._start_time = now()
        self._bar = Bar(now=now, first_line_at=self._start_time)

    def __enter__(self) -> "PicturesProgress":
        """Show the bar if stderr is a terminal."""
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.__exit__()

    def update(self, done: int) -> None:
        """Show how many pictures are done, how fast, and how long the others will take."""
        speed = done / max(self._now() - self._start_time, 1e-9)
        left = timedelta(seconds=round((self._total - done) / max(speed, 1e-9)))
        text = f"{done:,}/{self._total:,} pictures  {speed:.0f} pictures/s  {left} left"
        self._bar.show(text, done, self._total, last_line=False)
