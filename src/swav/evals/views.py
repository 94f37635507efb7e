"""Features of random views of pictures, for evaluations that augment."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from swav.data.augment import AugmentConfig
from swav.data.crops import CropGroup, ViewsConfig
from swav.data.loader import make_views
from swav.data.sources import Pictures
from swav.evals.features import PIXELS_SIZE, readable
from swav.evals.subject import Subject

CROP_AND_FLIP = AugmentConfig(jitter=0.0, grey=0.0, blur=0.0)


def view_features(
    subject: Subject,
    pictures: Pictures,
    *,
    scale: tuple[float, float],
    augment: AugmentConfig = CROP_AND_FLIP,
    seed: int,
    epoch: int,
) -> tuple[Float[Tensor, "images features"], Float[Tensor, "images features"]]:
    """Return the features of two random views of every readable picture, in the set's order.

    The views are those of a training: a function of (seed, epoch, position of the picture).
    """
    size = (PIXELS_SIZE,) * 2 if subject.transform is None else subject.transform.input_size[1:]
    group = CropGroup(count=2, size=size, scale=scale, augment=augment)
    plain = (0.0,) * pictures.channels, (1.0,) * pictures.channels
    views = ViewsConfig(groups=(group,), mean=plain[0], std=plain[1])
    first: list[Tensor] = []
    second: list[Tensor] = []
    for indices, batch in readable(pictures):
        made = make_views(batch, np.array(indices), views, seed=seed, epoch=epoch)
        for view, features in zip(made, (first, second), strict=True):
            shown = (view * 255).round().clamp(0, 255).byte()
            features.append(subject.encode_views(list(shown)))
    return torch.cat(first), torch.cat(second)
