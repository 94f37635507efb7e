"""``bad_files.txt``: the pictures that could not be read, one a line with the reason."""

import os
from collections.abc import Iterable
from pathlib import Path

from swav.data.sources.listing import BadFile
from swav.data.sources.open import SourceConfig
from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically


def write_bad_files(folder: Path, bad_files: Iterable[BadFile]) -> None:
    """Add pictures to the list, each once; without any there is no file.

    The loader's workers append what they meet, a picture again in each epoch; this is where
    the list is put in order.
    """
    path = folder / layout.BAD_FILES
    before = path.read_bytes().split(b"\n") if path.exists() else []
    lines = [line for line in before if line]
    lines += [_line(bad) for bad in bad_files]
    by_name = {_name(line): line for line in reversed(lines)}  # the first reason counts
    if not by_name:
        return
    write_atomically(path, b"".join(by_name[name] + b"\n" for name in sorted(by_name)))


def append_bad_file(folder: Path, bad: BadFile) -> None:
    """Add one picture at the end, from any process of a training."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = os.open(folder / layout.BAD_FILES, flags, 0o644)
    os.write(descriptor, _line(bad) + b"\n")  # one write: lines of several processes never mix
    os.close(descriptor)


def check_bad_files(folder: Path, source: SourceConfig, *, num_listed: int) -> None:
    """Stop a run when more pictures than allowed have turned out to be unreadable.

    Raises:
        ValueError: with the number, the limit and the remedy.
    """
    path = folder / layout.BAD_FILES
    if not path.exists():
        return
    num_bad = len({_name(line) for line in path.read_bytes().split(b"\n") if line})
    if num_bad > source.max_bad_fraction * num_listed:
        raise ValueError(
            f"{num_bad} of {num_listed} pictures cannot be read, more than the allowed "
            f"{source.max_bad_fraction:.1%}: see {path}, repair or remove them, or raise "
            "--data.max-bad-fraction"
        )


def _line(bad: BadFile) -> bytes:
    """Return name and reason in one line."""
    reason = " ".join(bad.reason.split())
    return f"{bad.name!r}\t{reason}".encode("utf-8", "backslashreplace")


def _name(line: bytes) -> bytes:
    return line.partition(b"\t")[0]
