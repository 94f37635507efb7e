"""Files that a reader sees in their old state or whole in the new one, whatever happens."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file, text as UTF-8 with other bytes of file names kept; its folder is made."""
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def append_whole(path: Path, line: bytes) -> None:
    """Append a whole line, or raise OSError and leave the file as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"only a part of a line fitted into {path}")
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden path of the same ending to write to, which then takes the place of ``path``.

    It is flushed to the disk before: a rename that survives a power failure without the bytes
    would leave an empty file. After an exception nothing has changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the process number tells writers apart; the ending stays, as numpy adds one that is missing
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.unfinished{path.suffix}")
    try:
        unfinished.touch()
        ordinary = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(ordinary)  # safetensors makes files that nobody else can read
        flush_to_disk(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder to write files to, which then takes the place of ``folder``.

    The files appear together. After an exception nothing has changed, and a folder around it that
    was made for it is gone.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    is_first = not folder.parent.exists()
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    ordinary = unfinished.stat().st_mode & 0o666
    try:
        yield unfinished
        for path in unfinished.iterdir():
            path.chmod(ordinary)
            flush_to_disk(path)
        # aside first: a folder cannot be replaced by a rename while it holds files
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
        flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_first:
            with suppress(OSError):  # it holds what was written
                folder.parent.rmdir()
    shutil.rmtree(replaced, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
