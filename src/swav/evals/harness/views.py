"""Features of random views of pictures, for evaluations that augment."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from swav.data.eval_transform import Picture
from swav.data.sources.decode import Decoded
from swav.data.sources.pictures import Pictures
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views
from swav.evals.harness.extract import PIXELS_SIZE, prepared_batches
from swav.evals.harness.subject import Subject

Views = UInt8[Tensor, "batch channels height width"]
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
    drawn = draw_views(
        pictures,
        size=size,
        scale=scale,
        augment=augment,
        seed=seed,
        epoch=epoch,
        workers=subject.workers,
    )
    encoded = [[subject.encode_views(list(crops)) for crops in views] for views in drawn]
    first, second = zip(*encoded, strict=True)
    return torch.cat(first), torch.cat(second)


def draw_views(
    pictures: Pictures,
    *,
    size: tuple[int, int],
    scale: tuple[float, float],
    augment: AugmentConfig,
    seed: int,
    epoch: int,
    workers: int = 0,
) -> Iterator[tuple[Views, Views]]:
    """Yield two random views of every readable picture, batch after batch, as bytes."""
    group = CropGroup(count=2, size=size, scale=scale, augment=augment)
    views = ViewsConfig(groups=(group,))

    def draw(indices: list[int], batch: list[Picture]) -> tuple[Views, ...]:
        decoded = [Decoded(picture, (picture.shape[1], picture.shape[2])) for picture in batch]
        whole = PictureBatch(decoded)
        return make_byte_views(whole, np.array(indices), views, seed=seed, epoch=epoch).views

    for _, (first, second) in prepared_batches(pictures, draw, workers=workers):
        yield first, second
