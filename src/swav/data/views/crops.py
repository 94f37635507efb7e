"""Multi-crop: which views are taken of a picture, and the boxes of its random resized crops."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int64

from swav.config import UsageError, check_ranges
from swav.data.sources.groups import ImageGroups, find_image_groups
from swav.data.sources.pictures import Pictures
from swav.data.views.augment import AugmentConfig

# as in torchvision's RandomResizedCrop
ATTEMPTS = 10
NUM_DRAWS = 2 * ATTEMPTS + 3
"""Uniform numbers that one view needs for its box and its flip."""

Pipeline = Literal["fused", "device", "pillow"]
"""What makes views: a compiled kernel; that for crops and the network's device for colours; Pillow
and torchvision, the slow reference."""


@dataclass(frozen=True, kw_only=True)
class CropGroup:
    """Views of one kind: ``count`` random resized crops of one size."""

    count: int
    size: tuple[int, int]
    """Height and width in pixels."""
    scale: tuple[float, float]
    """Range of the share of the picture's area that a crop covers."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of width over height of the box, before it is resized."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.size) < 1:
            raise ValueError(f"a crop group of {self.count} x {self.size}: both must be positive")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must be two rising shares of the area in (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must be two rising positive numbers")
        check_ranges(self, count="[1, 100]", size="[1, 10000]", scale="(0, 1]", ratio="[0.01, 100]")

    @property
    def description(self) -> str:
        """The group in the short form of the command line, such as ``2x224``."""
        height, width = self.size
        return f"{self.count}x{height}" + ("" if height == width else f"x{width}")


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The views of every picture; those of the first group are the targets."""

    groups: tuple[CropGroup, ...]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.228, 0.224, 0.225)
    """As in the published code of SwAV, also the first, which is 0.229 elsewhere."""
    pipeline: Pipeline = "fused"
    """What makes the views: fused (compiled), device (colours on the GPU) or pillow (reference)."""
    group: Literal["folder", "column"] | None = None
    """Take every second view of a picture from another of its group: those in one folder, or with
    the same text in the column ``group`` of a table. By default from itself."""
    time_window: float | None = None
    """Pair pictures of a group only if the column ``time`` (numbers, or dates as seconds) puts
    them at most this far apart."""

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("at least one group of views is needed")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} need one positive std a channel")
        if self.time_window is not None and self.group is None:
            raise ValueError("time_window is about the pictures of a group: give group as well")
        if self.time_window is not None and not self.time_window >= 0:
            raise ValueError(f"time_window {self.time_window} must be 0 or more")
        check_ranges(self, mean="(-inf, inf)", std="(0, inf)", time_window="[0, inf]")

    @property
    def num_targets(self) -> int:
        """Views that give codes."""
        return self.groups[0].count

    @property
    def num_views(self) -> int:
        """All views of a picture."""
        return sum(group.count for group in self.groups)

    @property
    def description(self) -> str:
        """The views in the short form of the command line, such as ``2x224,6x96``."""
        return ",".join(group.description for group in self.groups)

    def with_crops(self, crops: str) -> "ViewsConfig":
        """Return these views with the counts and sizes of ``crops`` (``2x224,6x96``)."""
        parts = [re.fullmatch(r"(\d+)x(\d+)(?:x(\d+))?", part.strip()) for part in crops.split(",")]
        # fewer groups may be given, as without small crops; more would have no scale
        if not all(parts) or len(parts) > len(self.groups):
            raise UsageError(
                f"crops {crops!r}: give at most {len(self.groups)} groups as COUNTxSIZE or "
                f"COUNTxHEIGHTxWIDTH, separated by commas, such as {self.description}"
            )
        sizes = [[int(number) for number in part.groups() if number] for part in parts if part]
        groups = tuple(
            replace(group, count=size[0], size=(size[1], size[-1]))
            for group, size in zip(self.groups, sizes, strict=False)
        )
        return replace(self, groups=groups)

    def with_augment(self, **values: Any) -> "ViewsConfig":
        """Return these views with some settings of the augmentation changed in every group."""
        groups = tuple(
            replace(group, augment=replace(group.augment, **values)) for group in self.groups
        )
        return replace(self, groups=groups)

    def image_groups(self, pictures: Pictures) -> ImageGroups | None:
        """Return the groups of pictures that are views of each other; None without ``group``.

        Raises:
            ValueError: if a column is missing, or no picture has another in its group.
        """
        if self.group is None:
            return None
        return find_image_groups(pictures, by=self.group, window=self.time_window)


Boxes = Int64[np.ndarray, "batch 4"]
"""Top, left, height, width in pixels of the picture."""


def draw_boxes(
    group: CropGroup,
    sizes: Int64[np.ndarray, "batch 2"],
    uniforms: Float[np.ndarray, "batch draws"],
) -> tuple[Boxes, Bool[np.ndarray, " batch"]]:
    """Return the boxes and flips of one view; ``sizes`` are (height, width) of the pictures.

    Area and ratio are drawn up to ten times until the box fits; else the largest central box
    of an allowed ratio is taken (as torchvision's RandomResizedCrop).
    """
    low, high = group.scale
    height, width = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
    # all attempts are drawn at once: a batch is one array operation
    area = height * width * (low + (high - low) * uniforms[:, :ATTEMPTS])
    # in logarithms, so that upright and lying boxes are equally likely
    log_low, log_high = np.log(group.ratio[0]), np.log(group.ratio[1])
    ratio = np.exp(log_low + (log_high - log_low) * uniforms[:, ATTEMPTS : 2 * ATTEMPTS])
    # rint and Python's round, which torchvision takes, round halves to even
    tried_height, tried_width = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (tried_height <= height) & (tried_width <= width)
    fits &= (tried_height > 0) & (tried_width > 0)
    first = fits.argmax(axis=1)[:, None]
    central_ratio = np.clip(width / height, *group.ratio)
    central_height = np.minimum(height, np.rint(width / central_ratio).clip(1))
    central_width = np.minimum(width, np.rint(height * central_ratio).clip(1))
    fits_once = fits.any(axis=1)[:, None]
    box_height = np.where(fits_once, np.take_along_axis(tried_height, first, 1), central_height)
    box_width = np.where(fits_once, np.take_along_axis(tried_width, first, 1), central_width)
    free_height, free_width = height - box_height, width - box_width
    down, across, flip = uniforms[:, 2 * ATTEMPTS :].T
    top = np.where(fits_once, np.floor(down[:, None] * (free_height + 1)), free_height // 2)
    left = np.where(fits_once, np.floor(across[:, None] * (free_width + 1)), free_width // 2)
    boxes = np.concatenate([top, left, box_height, box_width], axis=1).astype(np.int64)
    return boxes, flip < group.augment.flip
