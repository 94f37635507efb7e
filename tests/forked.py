"""Processes for tests of kills, signals and ranks, without seconds of imports for each."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 120
_numbers = itertools.count()


@dataclass(frozen=True)
class Finished:
    """What a process left."""

    code: int
    """Its exit code; a signal that killed it is negative."""
    stdout: str
    stderr: str


class Process:
    """A process that is running, or has run."""

    def __init__(self, call: str, arguments: Sequence[Any], folder: Path) -> None:
        self._log = folder / f"process-{next(_numbers)}"
        self.pid = _ask(
            call=call, arguments=list(arguments), folder=str(folder), log=str(self._log)
        )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> Finished:
        """Return what it left, when it has ended."""
        code = _ask(wait=self.pid)
        out, error = (self._log.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        return Finished(code, out, error)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert time.monotonic() < deadline, self._log.with_suffix(".err").read_text()
            time.sleep(0.002)


def start_swav(words: Sequence[object], folder: Path) -> Process:
    """Start a ``swav`` command in a folder."""
    return Process("swav.cli:main", [str(word) for word in words], folder)


def swav(*words: object, folder: Path) -> Finished:
    """Run a ``swav`` command in a folder to its end."""
    return start_swav(words, folder).wait()


def on_ranks(function: str, *arguments: object, ranks: int, folder: Path) -> None:
    """Call ``module:function(rank, ranks, *arguments)`` in a process for each rank."""
    processes = [Process(function, [rank, ranks, *arguments], folder) for rank in range(ranks)]
    for finished in [process.wait() for process in processes]:
        assert finished.code == 0, finished.stderr


@cache
def _server() -> "subprocess.Popen[str]":
    """Start the server; it ends when this process does, at the end of its input."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    assert server.stdout is not None
    assert json.loads(server.stdout.readline()) == "ready"
    return server


def _ask(**request: Any) -> int:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    answer: int = json.loads(server.stdout.readline())
    return answer
