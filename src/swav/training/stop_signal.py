"""A stop by signal that waits for the end of the step; a second one does not wait."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignal:
    """Within a ``with`` block, SIGTERM, SIGINT (Ctrl-C) and SIGHUP only set ``requested``.

    SIGHUP comes when the terminal is closed; where it is ignored, as under ``nohup``, it stays so.

    The loop looks at it between steps, saves and leaves. A second signal of either kind raises
    KeyboardInterrupt at once. Outside the main thread Python delivers no signals, and this does
    nothing.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._process = os.getpid()
        self._previous: dict[
            signal.Signals, Callable[[int, FrameType | None], Any] | int | None
        ] = {}

    @property
    def requested(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._received is not None

    def __enter__(self) -> "StopSignal":
        """Install the handlers."""
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            for number in SIGNALS[:2] if is_kept else SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the handlers back that were there before."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _receive_in_worker(number)
        elif self._received is None:
            self._received = number
        else:
            raise KeyboardInterrupt


def _receive_in_worker(number: int) -> None:
    """Do what a forked worker should: leave Ctrl-C to its parent, and die of the others."""
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
