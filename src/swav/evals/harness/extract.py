"""Features of a set of pictures: of a backbone, and of the raw pixels it has to beat."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from swav.data.eval_transform import EvalTransform
from swav.data.sources.decode import UnreadablePicture
from swav.data.sources.pictures import Pictures

Picture = UInt8[Tensor, "channels _ _"]
Encode = Callable[[Sequence[Picture]], Float[Tensor, "batch features"]]
"""From decoded pictures to one row of features each."""

BATCH_SIZE = 256
PIXELS_SIZE = 32


class Features(NamedTuple):
    """One row for each readable picture of a set, in the set's order."""

    values: Float[Tensor, "images features"]
    labels: Int64[Tensor, " images"] | None
    names: Sequence[str]
    classes: tuple[str, ...] = ()
    """Names of the labels, empty if nobody knows them."""


def extract(
    backbone: nn.Module,
    pictures: Pictures,
    transform: EvalTransform,
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
) -> Features:
    """Return the pooled backbone features, not normalised; the backbone is left as it was.

    Pictures that cannot be read are left out.
    """
    with evaluating(backbone):
        encode = network_encoder(backbone, transform, device=device)
        return encode_all(encode, pictures, batch_size=batch_size)


def pixel_features(
    pictures: Pictures, *, size: int = PIXELS_SIZE, fit: Pictures | None = None
) -> Features:
    """Return the pixels themselves: the baseline that any training has to beat.

    Every picture is resized to ``size`` x ``size`` and each value standardised over the
    pictures of ``fit``, by default over ``pictures``.
    """
    return encode_all(pixel_encoder(fit or pictures, size=size), pictures)


def network_encoder(
    backbone: nn.Module, transform: EvalTransform, *, device: torch.device | str = "cpu"
) -> Encode:
    """Return the function from pictures to features; call it inside ``evaluating``."""

    @torch.no_grad()
    def encode(pictures: Sequence[Picture]) -> Float[Tensor, "batch features"]:
        features: Tensor = backbone(transform(pictures).to(device))
        return features.float().cpu()

    return encode


def pixel_encoder(fit: Pictures, *, size: int = PIXELS_SIZE) -> Encode:
    """Return the function from pictures to pixels, each value standardised over ``fit``."""
    pixels = encode_all(lambda pictures: _resized(pictures, size), fit).values
    deviation, mean = torch.std_mean(pixels, dim=0, correction=0)
    deviation = deviation.where(deviation > 0, 1.0)  # a value that never changes says nothing

    def encode(pictures: Sequence[Picture]) -> Float[Tensor, "batch features"]:
        return (_resized(pictures, size) - mean) / deviation

    return encode


def encode_all(encode: Encode, pictures: Pictures, *, batch_size: int = BATCH_SIZE) -> Features:
    """Return ``encode`` of every readable picture of the set.

    Raises:
        ValueError: if not one picture can be read.
    """
    values, kept = encode_rows(encode, pictures, batch_size=batch_size)
    return features_of(values, pictures, kept)


def encode_rows(
    encode: Encode, pictures: Pictures, *, batch_size: int = BATCH_SIZE
) -> tuple[Float[Tensor, "images features"], list[int]]:
    """Return ``encode`` of every readable picture and the positions of these in the set.

    Raises:
        ValueError: if not one picture can be read.
    """
    values: list[Tensor] = []
    kept: list[int] = []
    for indices, batch in readable(pictures, batch_size=batch_size):
        values.append(encode(batch))
        kept.extend(indices)
    if not kept:
        raise ValueError(f"{pictures.data}: none of {len(pictures)} pictures can be read")
    return torch.cat(values), kept


def features_of(
    values: Float[Tensor, "images features"], pictures: Pictures, kept: Sequence[int]
) -> Features:
    """Return values with what is known of the pictures, at the positions ``kept``, they are of."""
    broken = int((~values.flatten(1).isfinite().all(dim=1)).sum())
    if broken:
        raise ValueError(
            f"the features of {broken} of {len(kept)} pictures are not finite: the network has "
            "diverged, or its file is damaged; take an earlier checkpoint or another file"
        )
    rows = np.asarray(kept)
    return Features(
        values=values,
        labels=None if pictures.labels is None else torch.from_numpy(pictures.labels[rows]),
        names=[pictures.names[index] for index in kept],
        classes=pictures.classes,
    )


def readable(
    pictures: Pictures, *, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[list[int], list[Picture]]]:
    """Yield the positions and pictures of a set in batches, leaving out unreadable ones."""
    for start in range(0, len(pictures), batch_size):
        indices: list[int] = []
        batch: list[Picture] = []
        for index in range(start, min(start + batch_size, len(pictures))):
            try:
                batch.append(pictures[index])
            except UnreadablePicture:
                continue
            indices.append(index)
        if batch:
            yield indices, batch


@contextmanager
def evaluating(backbone: nn.Module) -> Iterator[None]:
    """Put every part of a network into evaluation mode and back into the mode it was in."""
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _resized(pictures: Sequence[Picture], size: int) -> Float[Tensor, "batch features"]:
    """Return every picture at ``size`` x ``size``, flat, in [0, 1]."""
    if len({picture.shape for picture in pictures}) == 1:
        whole = resize(torch.stack(list(pictures)), [size, size], antialias=True)
    else:
        whole = torch.stack([resize(each, [size, size], antialias=True) for each in pictures])
    pixels: Tensor = whole.flatten(1).float().div_(255)
    return pixels
