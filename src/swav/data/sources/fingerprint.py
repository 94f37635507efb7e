"""Whether the pictures of a run are still the same ones, wherever they lie by now."""

import os
from hashlib import blake2b

import numpy as np

from swav.data.sources.listing import PackedNames
from swav.data.sources.readers import Reader, Stack

MOST_READ = 1000
"""Pictures whose contents are compared, evenly over the set; of arrays in memory all are."""


def fingerprint(names: PackedNames, reader: Reader, *, channels: int) -> str:
    """Return a text that other pictures, or the same ones in another order, do not have.

    It is made of every name below the folder that all have in common, every size, and the contents
    of a thousand. A copy elsewhere, packed or unpacked, has the same text: times of files are not
    in it, and what is decoded is not either, since a decoder's last bit depends on its version. Of
    a million files none but a thousand is opened; what is missed is a change of others that keeps
    the length of the file.
    """
    digest = blake2b(f"{channels} {len(names)}".encode(), digest_size=16)
    # of the first and the last in order, and so of all; by characters, then back to a slash
    ends = [min(names, default=""), max(names, default="")]
    start = os.path.commonprefix(ends).rfind("/") + 1  # noqa: RUF071
    for row, name in enumerate(names):
        digest.update(name[start:].encode("utf-8", "surrogatepass") + b"\0")
        digest.update(f"{_num_bytes(reader, row)}\0".encode())
    most = len(names) if isinstance(reader, Stack) else MOST_READ
    for row in np.linspace(0, len(names) - 1, min(len(names), most)).astype(np.int64).tolist():
        digest.update(_content(reader, row, channels))
    return digest.hexdigest()


def _num_bytes(reader: Reader, row: int) -> int:
    try:
        return reader.num_bytes(row)
    except (OSError, ValueError):
        return -1  # a set with a bad file has a fingerprint too


def _content(reader: Reader, row: int, channels: int) -> bytes:
    try:
        return reader.content(row, channels)
    except (OSError, ValueError):
        return b"unreadable"
