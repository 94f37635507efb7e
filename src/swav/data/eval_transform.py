"""From decoded pictures to what a trained network sees: the evaluation transform."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, UInt8
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

INTERPOLATIONS = ("bicubic", "bilinear")

Picture = UInt8[Tensor, "channels _ _"]


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Shorter side to the input size over ``crop_pct``, centre crop, mean and deviation.

    The same to the bit as timm's own transform of a model with these settings, so an exported
    model sees what it was evaluated on. Pictures of one or three channels are resized by Pillow,
    as timm does; others as tensors, with antialiasing.
    """

    input_size: tuple[int, int, int]
    """Channels, height, width."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    """Share of the resized shorter side that the centre crop keeps: 0.875 is 224 of 256."""

    def __post_init__(self) -> None:
        channels = self.input_size[0]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise ValueError(f"{name} {values} needs one value for each of {channels} channels")
        if min(self.input_size) < 1:
            raise ValueError(f"input_size {self.input_size} must be positive numbers")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be above 0")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct {self.crop_pct} must lie in (0, 1]")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation {self.interpolation!r}: use one of {INTERPOLATIONS}")

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any]) -> "EvalTransform":
        """Return the transform that a timm model's ``pretrained_cfg`` describes.

        Raises:
            ValueError: if the model wants another crop than the centre.
        """
        mode = pretrained_cfg.get("crop_mode") or "center"
        if mode != "center":
            raise ValueError(f"crop_mode {mode!r} of the model: only 'center' is known")
        channels, height, width = pretrained_cfg["input_size"]
        return cls(
            input_size=(channels, height, width),
            mean=tuple(pretrained_cfg["mean"]),
            std=tuple(pretrained_cfg["std"]),
            interpolation=pretrained_cfg["interpolation"],
            crop_pct=pretrained_cfg["crop_pct"],
        )

    def __call__(self, pictures: Sequence[Picture]) -> Float[Tensor, "batch channels height width"]:
        """Return the normalised pictures as one batch.

        Raises:
            ValueError: if a picture has another number of channels than the network.
        """
        return self.normalise(self.fit_all(pictures))

    def fit_all(self, pictures: Sequence[Picture]) -> UInt8[Tensor, "batch channels height width"]:
        """Return the pictures at the input size, as one batch of bytes."""
        return torch.stack([self.fit(picture) for picture in pictures])

    def normalise(
        self, batch: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return a batch with the mean taken off and divided by the deviation."""
        mean, std = (
            torch.tensor(values, device=batch.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        # in this order: what to_tensor and Normalize compute, to the bit
        return batch.float().div_(255).sub_(mean).div_(std)

    def fit(self, picture: Picture) -> UInt8[Tensor, "channels height width"]:
        """Return the picture at the input size."""
        channels = self.input_size[0]
        if picture.shape[0] != channels:
            raise ValueError(
                f"a picture with {picture.shape[0]} channels for a network of {channels}: "
                f"read the pictures with --channels {channels}"
            )
        # Pillow's resampling to the same size changes nothing
        if picture.shape == self.input_size and self.crop_pct == 1:
            return picture
        # Pillow has images of one or three channels only
        fitted: Tensor = self._geometry(to_pil_image(picture) if channels in (1, 3) else picture)
        return fitted

    @cached_property
    def _geometry(self) -> Callable[[Any], Tensor]:
        geometry: Callable[[Any], Tensor] = create_transform(
            input_size=self.input_size,
            is_training=False,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            normalize=False,  # done for a whole batch, on its device
        )
        return geometry
