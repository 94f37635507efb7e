"""Resizing and crop that a task may set for the input of a network."""

from dataclasses import dataclass, replace
from typing import Literal

from swav.data.eval_transform import EvalTransform


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Resizing and centre crop; what is None is that of the model."""

    interpolation: Literal["bicubic", "bilinear"] | None = None
    """Of the resizing; by default that of the model (bicubic of a run)."""
    crop_pct: float | None = None
    """Share of the resized shorter side that the centre crop keeps; by default that of the model
    (1 of a run)."""

    def __post_init__(self) -> None:
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct {self.crop_pct} must lie in (0, 1]")

    def applied(self, transform: EvalTransform) -> EvalTransform:
        """Return the transform of a model with what is set here in place."""
        return replace(
            transform,
            interpolation=self.interpolation or transform.interpolation,
            crop_pct=self.crop_pct or transform.crop_pct,
        )


AS_THE_MODEL = InputConfig()
PUBLISHED = InputConfig(interpolation="bilinear", crop_pct=0.875)
"""Of SwAV's evaluations and torchvision's: shorter side 256, centre crop 224."""
