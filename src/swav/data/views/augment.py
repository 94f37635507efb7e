"""Changes of colour and blur: their settings, drawn parameters, and operations on a device.

Jitter, grey, blur and solarise come in the published order. Every operation works on
``(batch, channels, height, width)`` views in [0, 1] and takes one parameter per picture, so that
a device makes a whole batch in a few array operations (``--views.pipeline device``); ``fused`` does
the same on a processor. Definitions are those of torchvision's ``adjust_*``; blur is Pillow's
approximation of a Gaussian.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from swav.config import check_ranges

FloatViews = Float[Tensor, "batch channels height width"]
Factors = Float[Tensor, " batch"]

NUM_DRAWS = 13
"""Uniform numbers that one view needs for its colours and its blur."""
# as in Pillow: ImageFilter.GaussianBlur passes three times
BLUR_BOXES = 3
"""Boxes that are convolved to come near a Gaussian."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How strongly a view is altered; the defaults are SwAV's on ImageNet."""

    flip: float = 0.5
    """Probability of a left-right flip; 0 where direction carries meaning."""
    jitter: float = 0.8
    """Probability of the colour jitter."""
    brightness: float = 0.8
    """The factor is drawn from [1 - brightness, 1 + brightness], as for the next two."""
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    """The shift is drawn from [-hue, hue] turns of the colour circle."""
    grey: float = 0.2
    """Probability of dropping colour."""
    blur: float = 0.5
    """Probability of a Gaussian blur."""
    blur_radius: tuple[float, float] = (0.1, 2.0)
    """Range of its standard deviation, in pixels of the view."""
    solarise: float = 0.0
    """Probability of inverting the upper half of the values (BYOL's second view)."""

    def __post_init__(self) -> None:
        chances = {
            "flip": self.flip,
            "jitter": self.jitter,
            "grey": self.grey,
            "blur": self.blur,
            "solarise": self.solarise,
        }
        for name, value in chances.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} {value} is a probability: give a number from 0 to 1")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue {self.hue} must be from 0 to 0.5 turns of the colour circle")
        low, high = self.blur_radius
        if not 0 < low <= high:
            raise ValueError(f"blur_radius {self.blur_radius} must be two rising positive numbers")
        check_ranges(
            self,
            brightness="[0, 100]",
            contrast="[0, 100]",
            saturation="[0, 100]",
            blur_radius="(0, 100]",
        )


@dataclass(frozen=True)
class ColourParams:
    """The drawn parameters of the colours and the blur of one view of each picture of a batch."""

    jitter: Bool[np.ndarray, " batch"]
    order: Int64[np.ndarray, "batch 4"]
    """In which order brightness (0), contrast (1), saturation (2) and hue (3) are applied."""
    factors: Float32[np.ndarray, "batch 4"]
    grey: Bool[np.ndarray, " batch"]
    blur: Bool[np.ndarray, " batch"]
    blur_radius: Float32[np.ndarray, " batch"]
    solarise: Bool[np.ndarray, " batch"]

    def __getitem__(self, rows: slice) -> "ColourParams":
        """Return the parameters of some of the pictures."""
        return ColourParams(**{name: values[rows] for name, values in vars(self).items()})


def draw_colour_params(
    config: AugmentConfig, uniforms: Float[np.ndarray, "batch 13"]
) -> ColourParams:
    """Turn uniform numbers into parameters."""
    strength = np.array([config.brightness, config.contrast, config.saturation])
    # a negative factor would invert the picture; torchvision cuts there too
    low = np.maximum(1 - strength, 0)
    scaled = low + uniforms[:, 1:4] * (1 + strength - low)
    shift = (2 * uniforms[:, 4:5] - 1) * config.hue
    radius_low, radius_high = config.blur_radius
    return ColourParams(
        # each has a draw of its own, needed or not, so that settings do not move one another
        jitter=uniforms[:, 0] < config.jitter,
        # the ranks of four numbers: every order is equally likely
        order=uniforms[:, 5:9].argsort(axis=1),
        factors=np.concatenate([scaled, shift], axis=1).astype(np.float32),
        grey=uniforms[:, 9] < config.grey,
        blur=uniforms[:, 10] < config.blur,
        blur_radius=(radius_low + uniforms[:, 11] * (radius_high - radius_low)).astype(np.float32),
        solarise=uniforms[:, 12] < config.solarise,
    )


def augment(views: FloatViews, colours: ColourParams) -> FloatViews:
    """Return the views after jitter, grey, blur and solarise (SwAV, appendix A.1)."""
    # the operations are in place
    views = views.clone()
    is_coloured = views.shape[1] == 3

    def change(chosen: np.ndarray, operation: Callable[..., Tensor], *params: np.ndarray) -> None:
        rows = chosen.nonzero()[0]
        if len(rows):
            places, *values = (
                torch.from_numpy(array).to(views.device)
                for array in (rows, *(param[rows] for param in params))
            )
            views[places] = operation(views[places], *values)

    # saturation and hue mean nothing outside red, green and blue
    operations = (brightness, contrast, saturation, hue)[: 4 if is_coloured else 2]
    for turn in range(4):
        for number, operation in enumerate(operations):
            chosen = colours.jitter & (colours.order[:, turn] == number)
            change(chosen, operation, colours.factors[:, number])
    if is_coloured:
        change(colours.grey, lambda chosen: luma(chosen).expand(-1, 3, -1, -1))
    change(colours.blur, blur, colours.blur_radius)
    change(colours.solarise, solarise)
    return views


def luma(views: FloatViews) -> Float[Tensor, "batch 1 height width"]:
    """Return the grey value of each pixel (ITU-R 601)."""
    if views.shape[1] != 3:
        return views.mean(dim=1, keepdim=True)
    red, green, blue = views.unbind(1)
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)[:, None]


def brightness(views: FloatViews, factors: Factors) -> FloatViews:
    """Return the views multiplied by their factors."""
    return (views * _per_picture(factors)).clamp_(0, 1)


def contrast(views: FloatViews, factors: Factors) -> FloatViews:
    """Return the views blended with their mean grey value."""
    mean = luma(views).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, views, _per_picture(factors)).clamp_(0, 1)


def saturation(views: FloatViews, factors: Factors) -> FloatViews:
    """Return the views blended with their grey version."""
    return torch.lerp(luma(views), views, _per_picture(factors)).clamp_(0, 1)


def hue(views: FloatViews, shifts: Factors) -> FloatViews:
    """Return the views with the hue of HSV turned by ``shifts`` (in turns).

    Value and chroma stay, so each channel is ``value - chroma * ramp(hue)`` with the ramp of
    the closed form of HSV to RGB.
    """
    red, green, blue = views.unbind(1)
    value = views.amax(dim=1)
    chroma = value - views.amin(dim=1)
    safe = chroma.clamp(min=1e-8)  # grey has no hue: anything finite does
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    turned = sextant + 6 * shifts[:, None, None]
    channels = []
    for offset in (5, 3, 1):
        ramp = torch.remainder(turned + offset, 6)
        ramp = torch.minimum(ramp, 4 - ramp).clamp_(0, 1)
        channels.append(value - chroma * ramp)
    return torch.stack(channels, dim=1)


def solarise(views: FloatViews) -> FloatViews:
    """Return the views with every value of 0.5 and above inverted."""
    return torch.where(views >= 0.5, 1 - views, views)


def blur(views: FloatViews, radius: Factors) -> FloatViews:
    """Return the views under a near Gaussian whose standard deviation is ``radius`` pixels."""
    _, channels, height, width = views.shape
    # as matrices, for the radius differs from view to view and a convolution has one for all
    halves = [torch.from_numpy(blur_kernel(sigma)) for sigma in radius.double().tolist()]
    half = torch.nn.utils.rnn.pad_sequence(halves, batch_first=True).to(radius.device)
    kernel = torch.cat([half[:, 1:].flip(1), half], dim=1)
    across = views.flatten(1, 2) @ _blur_matrix(width, kernel).mT
    down: Tensor = _blur_matrix(height, kernel)[:, None] @ across.view(-1, channels, height, width)
    return down


def blur_kernel(radius: float) -> Float32[np.ndarray, " taps"]:
    """Return the weights of a blur from its middle outwards.

    Three extended boxes with the variance of the Gaussian (Gwosdek et al., 2011,
    doi 10.1007/978-3-642-24785-9_38), as in Pillow: whole pixels, and a part of one at either end.
    The compiled kernel is made from this function too.
    """
    # variances of boxes that are convolved add up
    variance = radius * radius / BLUR_BOXES
    # a box of n pixels has the variance (n * n - 1) / 12
    whole = int((np.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part /= 6 * (variance - (whole + 1) ** 2)
    box = np.ones(2 * whole + 3)
    box[0] = part
    box[-1] = part
    box /= 2 * (whole + part) + 1
    smooth = np.convolve(np.convolve(box, box), box)
    return smooth[BLUR_BOXES * (whole + 1) :].astype(np.float32)


def _blur_matrix(
    size: int, kernel: Float[Tensor, "batch taps"]
) -> Float[Tensor, "batch size size"]:
    """Return the blur along one axis as a matrix; the border pixel stands for all beyond it."""
    reach = kernel.shape[1] // 2
    weights = F.pad(kernel, (size - 1, size - 1)).unfold(1, size + 2 * reach, 1).flip(1)
    inside = weights[:, :, reach : reach + size].clone()
    inside[:, :, 0] += weights[:, :, :reach].sum(dim=2)
    inside[:, :, -1] += weights[:, :, reach + size :].sum(dim=2)
    return inside


def _per_picture(factors: Factors) -> Float[Tensor, "batch 1 1 1"]:
    return factors[:, None, None, None]
