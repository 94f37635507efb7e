"""``train.log``: what a run says to people, with the time, in its folder as well as on stderr."""

import logging
import sys
from contextlib import suppress
from pathlib import Path

from swav.run_folder import layout


class RunLog:
    """Within a ``with`` block, messages of this package also go to ``train.log``.

    Use it on one rank, holding the run's lock. A program that has set up logging keeps its own
    way of showing messages; otherwise they are printed to stderr. Errors are left to whoever
    catches the exception, and only written down.
    """

    def __init__(self, run_folder: Path) -> None:
        self._path = run_folder / layout.LOG
        self._logger = logging.getLogger("swav")
        self._level = self._logger.level
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> "RunLog":
        """Open the file, to append to it."""
        file = _Patient(self._path, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handlers.append(file)
        if not logging.getLogger().handlers:
            console = logging.StreamHandler(sys.stderr)
            console.addFilter(lambda record: record.levelno < logging.ERROR)
            self._handlers.append(console)
        for handler in self._handlers:
            self._logger.addHandler(handler)
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Write down what ended the run, if something did, and close the file."""
        file = self._handlers[0]
        if error is not None:
            text = f"{type(error).__name__}: {error}"
            file.handle(self._logger.makeRecord("swav", logging.ERROR, "", 0, text, (), None))
        for handler in self._handlers:
            self._logger.removeHandler(handler)
            handler.close()
        self._handlers.clear()
        self._logger.setLevel(self._level)


class _Patient(logging.FileHandler):
    """A file that loses a message rather than the run when the disk is full."""

    def close(self) -> None:
        """Close the file; what is not written by now is left out."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the message out."""
