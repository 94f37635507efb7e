"""Decoded pictures kept in memory that all loading processes share, as many as fit."""

import mmap
import multiprocessing

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from swav.data.sources.decode import Decoded, Reduction
from swav.data.sources.readers import Reader, Size

_OFFSET, _HEIGHT, _WIDTH, _FULL_HEIGHT, _FULL_WIDTH, _REDUCTION = range(6)
_ABSENT = -1


class Cached(Reader):
    """Another reader, whose pictures are decoded once: by whichever forked process asks first.

    Memory is taken as it fills. A picture that no longer fits is decoded every time; nothing is
    thrown out, so an epoch decodes a fixed share. What ``reduction`` allows must not change.
    """

    def __init__(self, reader: Reader, *, max_bytes: int, channels: int) -> None:
        self._reader = reader
        self._channels = channels
        # anonymous and mapped before the fork, so that all processes share it; its pages cost
        # nothing until they are written
        self._memory = np.frombuffer(mmap.mmap(-1, max(max_bytes, 1)), dtype=np.uint8)
        # numbers in one block: pages of Python objects would be copied by their counts of
        # references
        table = np.frombuffer(mmap.mmap(-1, max(len(reader) * 6 * 8, 1)), dtype=np.int64)
        self._table = table[: len(reader) * 6].reshape(len(reader), 6)
        self._table[:, _OFFSET] = _ABSENT
        self._used = np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)
        # of the kind of process that the loader starts
        self._lock = multiprocessing.get_context("fork").Lock()

    def __len__(self) -> int:
        return len(self._reader)

    def picture(self, row: int, channels: int) -> UInt8[Tensor, "channels height width"]:
        """Return what the other reader gives."""
        return self._reader.picture(row, channels)

    def reduced(self, row: int, channels: int, reduction: Reduction | None) -> Decoded:
        """Return a picture from memory, or decode it and keep it if there is room."""
        with self._lock:  # also puts the writing of pixels before the reading, on any processor
            entry = self._table[row].tolist()
        if entry[_OFFSET] != _ABSENT:
            return self._stored(entry)
        decoded = self._reader.reduced(row, channels, reduction)
        self._store(row, decoded)
        return decoded

    def size(self, row: int) -> Size:
        """Return what the other reader gives."""
        return self._reader.size(row)

    def stamp(self, row: int, channels: int) -> bytes:
        """Return what the other reader gives."""
        return self._reader.stamp(row, channels)

    def _stored(self, entry: list[int]) -> Decoded:
        offset, height, width, full_height, full_width, factor = entry
        content = self._memory[offset : offset + height * width * self._channels]
        pixels = torch.from_numpy(content).view(height, width, self._channels).permute(2, 0, 1)
        return Decoded(pixels, (full_height, full_width), factor)

    def _store(self, row: int, decoded: Decoded) -> None:
        content = decoded.pixels.permute(1, 2, 0).reshape(-1).numpy()
        with self._lock:
            offset = int(self._used[0])
            if len(content) > len(self._memory) - offset:
                return
            # two processes may decode the same picture at once; the place of one is then lost
            self._used[0] = offset + len(content)
        # outside the lock, as the place is taken; the entry follows when the pixels stand there
        self._memory[offset : offset + len(content)] = content
        height, width = decoded.pixels.shape[1:]
        entry = (offset, height, width, *decoded.size, decoded.reduction)
        with self._lock:
            self._table[row] = entry
