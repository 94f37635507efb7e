"""Groups of pictures: those of one group count as views of each other.

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


class ImageGroups:
    """Which other pictures each picture may be shown with: those of its group, near in time."""

    def __init__(
        self,
        group_ids: Int64[np.ndarray, " images"],
        times: Float64[np.ndarray, " images"] | None = None,
        *,
        window: float | None = None,
    ) -> None:
        """Sort the groups.

        Args:
            group_ids: a number for the group of each picture.
            times: when each was taken; pictures more than ``window`` apart are not paired.
            window: in the unit of ``times``; None pairs the whole group.
        """
        assert (times is None) == (window is None)
        self.group_ids = group_ids
        # lexsort takes its last key first: by group, and within it by time
        keys = (group_ids,) if times is None else (times, group_ids)
        self._order = np.lexsort(keys)
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(group_ids))
        ordered = group_ids[self._order]
        # two numbers a picture instead of a list of its group, however large the groups are
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
        sizes = np.unique(self.group_ids, return_counts=True)[1]
        total = sizes.sum()
        return float((sizes * (sizes - 1)).sum() / total / max(total - 1, 1) * (batch - 1))

    def partners(
        self, indices: Int64[np.ndarray, " batch"], *, seed: int, epoch: int
    ) -> Int64[np.ndarray, " batch"]:
        """Return another picture for each, every one of its group alike; itself if it is alone.

        The draw depends on (seed, epoch, picture) only.
        """
        own = self._place[indices]
        first, num_others = self._first[own], self._end[own] - self._first[own] - 1
        uniforms = random.uniforms(
            seed=seed, epoch=epoch, indices=indices, view=random.Stream.GROUPS, num_draws=1
        )
        other = first + (uniforms[:, 0] * num_others).astype(np.int64)
        other += (other >= own) & (num_others > 0)  # step over the picture itself
        partners: Int64[np.ndarray, " batch"] = self._order[other]
        return partners

    def _narrow(self, times: Float64[np.ndarray, " images"], window: float) -> None:
        """Keep in each group only what lies within ``window``; ``times`` are in sorted order."""
        starts = np.unique(self._first)
        for start, end in zip(starts, [*starts[1:], len(times)], strict=True):
            within = times[start:end]
            self._first[start:end] = start + np.searchsorted(within, within - window, side="left")
            self._end[start:end] = start + np.searchsorted(within, within + window, side="right")


def find_image_groups(
    pictures: Pictures, *, by: Literal["folder", "column"], window: float | None
) -> ImageGroups:
    """Return the groups of pictures that count as views of each other.

    Raises:
        ValueError: if a column is missing, or no picture has another in its group.
    """
    if by == "folder":
        group_ids = folder_groups(pictures.names)
    else:
        group_ids = column_groups(_column(pictures, "group"))
    times = None if window is None else read_times(_column(pictures, "time"))
    image_groups = ImageGroups(group_ids, times, window=window)
    if image_groups.num_paired == 0:
        wider = "" if window is None else " or a larger views.time_window"
        raise ValueError(
            f"no picture of {pictures.data} has another one in its group: give other groups"
            f"{wider}, or leave views.group out"
        )
    return image_groups


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
    # no text of a table starts so
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
