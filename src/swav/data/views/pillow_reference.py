"""Views by Pillow and torchvision, one picture and one operation at a time: what others do.

Slow, and the oracle of the compiled path: both draw the same parameters, so that they can be
compared crop by crop. ``--views.pipeline pillow`` trains with it.
"""

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from swav.data.views.augment import ColourParams

_JITTER = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def render(
    picture: UInt8[Tensor, "channels _ _"],
    box: Float32[np.ndarray, " 4"],
    flip: bool,
    colours: ColourParams,
    row: int,
    size: tuple[int, int],
) -> UInt8[Tensor, "channels height width"]:
    """Return the view that row ``row`` of the drawn parameters makes of a picture.

    Raises:
        ValueError: If the picture has neither one channel nor three: Pillow knows no others.
    """
    channels = len(picture)
    if channels not in (1, 3):
        raise ValueError(
            f"the pipeline 'pillow' makes views of 1 or 3 channels, not of {channels}: "
            "use --views.pipeline fused"
        )
    values = picture.permute(1, 2, 0).numpy()
    image = Image.fromarray(values[..., 0] if channels == 1 else values)
    top, left, height, width = (int(side) for side in box)
    image = image.crop((left, top, left + width, top + height))
    # a reducing gap would average whole blocks first: other pixels, to be faster
    image = image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=None)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if colours.jitter[row]:
        for operation in colours.order[row].tolist():
            factor = float(colours.factors[row, operation])
            # saturation and hue mean nothing without colours
            if operation < 2 or (channels == 3 and (operation < 3 or factor)):
                image = _JITTER[operation](image, factor)  # no hue leaves the picture as it is
    if colours.grey[row] and channels == 3:
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if colours.blur[row]:
        image = image.filter(ImageFilter.GaussianBlur(float(colours.blur_radius[row])))
    if colours.solarise[row]:
        image = tv.solarize(image, 128)
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))
