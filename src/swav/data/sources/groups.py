"""Positives from the data: pictures of one group count as views of each other.

Frames of one video, photos of one object: what they share says more than augmentation can. Labels
have no part in it. Every second view of a picture is then taken of another picture of its group.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from swav.data import random
from swav.data.sources.pictures import Pictures


class Positives:
    """Which other pictures each picture may be shown with: those of its group, near in time."""

    def __init__(
        self,
        groups: Int64[np.ndarray, " images"],
        times: Float64[np.ndarray, " images"] | None = None,
        *,
        window: float | None = None,
    ) -> None:
        """Sort the groups.

        Args:
            groups: a number for the group of each picture.
            times: when each was taken; pictures more than ``window`` apart are not paired.
            window: in the unit of ``times``; None pairs the whole group.
        """
        assert (times is None) == (window is None)
        self.groups = groups
        keys = (groups,) if times is None else (times, groups)
        self._order = np.lexsort(keys)
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(groups))
        ordered = groups[self._order]
        self._first = np.searchsorted(ordered, ordered, side="left")
        self._end = np.searchsorted(ordered, ordered, side="right")
        if times is not None and window is not None:
            self._narrow(times[self._order], window)

    @property
    def num_paired(self) -> int:
        """Pictures that have at least one other to be shown with."""
        return int((self._end - self._first > 1).sum())

    def mates_in(self, batch: int) -> float:
        """Return how many others of its group a picture meets in a random batch, on average."""
        sizes = np.unique(self.groups, return_counts=True)[1]
        total = sizes.sum()
        return float((sizes * (sizes - 1)).sum() / total / max(total - 1, 1) * (batch - 1))

    def partners(
        self, indices: Int64[np.ndarray, " batch"], *, seed: int, epoch: int
    ) -> Int64[np.ndarray, " batch"]:
        """Return another picture for each, every one of its group alike; itself if it is alone.

        The draw depends on (seed, epoch, picture) only.
        """
        place = self._place[indices]
        first, others = self._first[place], self._end[place] - self._first[place] - 1
        draws = random.uniforms(
            seed=seed, epoch=epoch, indices=indices, view=random.Stream.GROUPS, num_draws=1
        )
        drawn = first + (draws[:, 0] * others).astype(np.int64)
        drawn += (drawn >= place) & (others > 0)  # step over the picture itself
        partners: Int64[np.ndarray, " batch"] = self._order[drawn]
        return partners

    def _narrow(self, times: Float64[np.ndarray, " images"], window: float) -> None:
        """Keep in each group only what lies within ``window``; ``times`` are in sorted order."""
        starts = np.unique(self._first)
        for start, end in zip(starts, [*starts[1:], len(times)], strict=True):
            within = times[start:end]
            self._first[start:end] = start + np.searchsorted(within, within - window, side="left")
            self._end[start:end] = start + np.searchsorted(within, within + window, side="right")


def find_positives(
    pictures: Pictures, *, by: Literal["folder", "column"], window: float | None
) -> Positives:
    """Return which of these pictures count as views of each other.

    Raises:
        ValueError: if a column is missing, or no picture has another in its group.
    """
    if by == "folder":
        groups = folder_groups(pictures.names)
    else:
        groups = column_groups(_column(pictures, "group"))
    times = None if window is None else read_times(_column(pictures, "time"))
    found = Positives(groups, times, window=window)
    if found.num_paired == 0:
        wider = "" if window is None else " or a larger views.time_window"
        raise ValueError(
            f"no picture of {pictures.data} has another one in its group: give other groups"
            f"{wider}, or leave views.group out"
        )
    return found


def folder_groups(names: Sequence[str]) -> Int64[np.ndarray, " images"]:
    """Return a number for the parent folder of each name.

    Raises:
        ValueError: if all lie in one folder.
    """
    folders = [name.rpartition("/")[0] for name in names]
    if len(set(folders)) < 2:
        raise ValueError(
            f"views.group folder: all {len(folders)} pictures lie in one folder, so each would be "
            "a view of any other: use one folder for each group, or a CSV file with a column "
            "'group' and --views.group column"
        )
    return _numbered(folders)


def column_groups(values: Sequence[str]) -> Int64[np.ndarray, " images"]:
    """Return a number for each text; a picture whose text is empty is alone."""
    return _numbered([value or f"\0{row}" for row, value in enumerate(values)])


def read_times(values: Sequence[str]) -> Float64[np.ndarray, " images"]:
    """Return numbers as they are, and ISO dates as seconds (UTC where they name no zone).

    Raises:
        ValueError: if one is neither.
    """
    return np.array([_time(value) for value in values], dtype=np.float64)


def _column(pictures: Pictures, name: str) -> Sequence[str]:
    if name not in pictures.columns:
        raise ValueError(
            f"{pictures.data} has no column {name!r}: give a CSV or TSV file whose first line "
            f"names the columns 'path' and {name!r}"
        )
    return pictures.columns[name]


def _time(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = _date(value)
    if not isfinite(seconds):
        raise ValueError(f"column 'time' holds {value!r}: write finite numbers")
    return seconds


def _date(value: str) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(
            f"column 'time' holds {value!r}: write numbers, or dates such as 2024-05-01T12:30:00"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _numbered(values: Sequence[str]) -> Int64[np.ndarray, " images"]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
