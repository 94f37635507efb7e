"""``bad_files.txt``: the pictures that could not be read, one a line with the reason."""

from collections.abc import Iterable
from pathlib import Path

from swav.data.sources.listing import BadFile
from swav.data.sources.open import SourceConfig

BAD_FILES = "bad_files.txt"


def write_bad_files(folder: Path, found: Iterable[BadFile]) -> None:
    """Add pictures to the list, each once; without any there is no file.

    The loader's workers append what they meet, a picture again in each epoch; this is where
    the list is put in order.
    """
    path = folder / BAD_FILES
    before = path.read_bytes().split(b"\n") if path.exists() else []
    lines = [line for line in before if line]
    lines += [_line(bad) for bad in found]
    by_name = {_name(line): line for line in reversed(lines)}  # the first reason counts
    if not by_name:
        return
    unfinished = folder / f".{BAD_FILES}.tmp"
    unfinished.write_bytes(b"".join(by_name[name] + b"\n" for name in sorted(by_name)))
    unfinished.replace(path)


def check_bad_files(folder: Path, source: SourceConfig, *, num_listed: int) -> None:
    """Stop a run when more pictures than allowed have turned out to be unreadable.

    Raises:
        ValueError: with the number, the limit and the remedy.
    """
    path = folder / BAD_FILES
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
    """Return name and reason as the loader writes them, the reason in one line."""
    reason = " ".join(bad.reason.split())
    return f"{bad.name!r}\t{reason}".encode("utf-8", "backslashreplace")


def _name(line: bytes) -> bytes:
    return line.partition(b"\t")[0]
