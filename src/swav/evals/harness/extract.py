"""Features of a set of pictures: of a backbone, and of the raw pixels it has to beat."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar, final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resize

from swav.data.eval_transform import EvalTransform, Picture
from swav.data.loader import readable
from swav.data.processes import items_of
from swav.data.sources.pictures import Pictures

Item = TypeVar("Item")
Rows = tuple[list[Float[Tensor, "images _"]], list[int]]
"""Features of one kind or several, a row for each readable picture, and where in the set it is."""

# of 224 pixels a batch has 154 MB as float32, on any device
BATCH_SIZE = 256
PIXELS_SIZE = 32


@dataclass(frozen=True)
class Encoder:
    """From decoded pictures to one row of features each, in two steps."""

    prepare: Callable[[Sequence[Picture]], Tensor]
    """To one batch; done by the loading processes, if there are any."""
    encode: Callable[[Tensor], Float[Tensor, "batch features"]]

    def __call__(self, pictures: Sequence[Picture]) -> Float[Tensor, "batch features"]:
        """Return the features of some pictures."""
        return self.encode(self.prepare(pictures))


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
    workers: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> Features:
    """Return the pooled backbone features, not normalised; the backbone is left as it was.

    Pictures that cannot be read are left out. ``on_progress`` is told how many pictures are done.
    """
    encode = network_encoder(backbone, transform, device=device)
    return encode_all(
        encode, pictures, batch_size=batch_size, workers=workers, on_progress=on_progress
    )


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
) -> Encoder:
    """Return what makes features of pictures, the network in evaluation mode."""

    @torch.no_grad()
    def encode(batch: Tensor) -> Float[Tensor, "batch features"]:
        with evaluating(backbone):
            # pictures travel as bytes and are normalised on the device: a quarter of the transfer
            features: Tensor = backbone(transform.normalise(batch.to(device)))
        return features.float().cpu()

    return Encoder(transform.fit_all, encode)


def pixel_encoder(fit: Pictures, *, size: int = PIXELS_SIZE, workers: int = 0) -> Encoder:
    """Return what makes pixels of pictures, each value standardised over ``fit``."""
    prepare = partial(resized, size=size)
    pixels = encode_all(Encoder(prepare, lambda batch: batch), fit, workers=workers).values
    return Encoder(prepare, standardised(lambda batch: batch, pixels))


def standardised(
    encode: Callable[[Tensor], Float[Tensor, "batch features"]],
    fit: Float[Tensor, "images features"],
) -> Callable[[Tensor], Float[Tensor, "batch features"]]:
    """Return what makes the same features with the mean 0 and the deviation 1 they have in ``fit``.

    Those that never change are only shifted: they say nothing.
    """
    deviation, mean = torch.std_mean(fit, dim=0, correction=0)
    deviation = deviation.where(deviation > 0, 1.0)
    return lambda batch: (encode(batch) - mean) / deviation


def encode_all(
    encoder: Encoder,
    pictures: Pictures,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> Features:
    """Return a row of features for every readable picture of the set.

    Raises:
        ValueError: if not one picture can be read.
    """
    (values,), kept = encode_rows(
        encoder.prepare,
        lambda batch: [encoder.encode(batch)],
        pictures,
        batch_size=batch_size,
        workers=workers,
        on_progress=on_progress,
    )
    return features_of(values, pictures, kept)


def encode_rows(
    prepare: Callable[[Sequence[Picture]], Tensor],
    encode: Callable[[Tensor], Sequence[Float[Tensor, "batch _"]]],
    pictures: Pictures,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> Rows:
    """Return one or several kinds of features of every readable picture, in one pass.

    Raises:
        ValueError: if not one picture can be read.
    """
    values: list[Sequence[Tensor]] = []
    kept: list[int] = []
    batches = prepared_batches(
        pictures,
        lambda _, batch: prepare(batch),
        batch_size=batch_size,
        workers=workers if pictures.pixels is None else 0,  # decoded already: a copy costs as much
    )
    for indices, batch in batches:
        values.append(encode(batch))
        kept.extend(indices)
        if on_progress is not None:
            on_progress(len(kept))
    if not kept:
        raise ValueError(f"{pictures.data}: none of {len(pictures)} pictures can be read")
    return [torch.cat(kind) for kind in zip(*values, strict=True)], kept


def features_of(
    values: Float[Tensor, "images features"], pictures: Pictures, kept: Sequence[int]
) -> Features:
    """Return values with what is known of the pictures, at the positions ``kept``, they are of."""
    # NaN would pass through kNN and k-means as a score, a wrong one
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


def readable_batches(
    pictures: Pictures, *, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[list[int], list[Picture]]]:
    """Yield the positions and pictures of a set in batches, leaving out unreadable ones."""
    return prepared_batches(pictures, lambda _, batch: batch, batch_size=batch_size)


def prepared_batches(
    pictures: Pictures,
    prepare: Callable[[list[int], list[Picture]], Item],
    *,
    batch_size: int = BATCH_SIZE,
    workers: int = 0,
) -> Iterator[tuple[list[int], Item]]:
    """Yield the positions of readable pictures and what ``prepare`` makes of both, in order.

    ``prepare`` runs in the loading processes, if there are any.
    """
    batches = _Prepared(pictures, prepare, batch_size)
    numbers = range(-(-len(pictures) // batch_size))
    items = items_of(batches, numbers, workers=min(workers, len(numbers)))
    return ((indices, item) for indices, item in items if indices)


@final
class _Prepared(Dataset[tuple[list[int], Any]]):
    """Batch number ``n`` of the readable pictures of a set; without positions if there are none."""

    def __init__(
        self,
        pictures: Pictures,
        prepare: Callable[[list[int], list[Picture]], Any],
        batch_size: int,
    ) -> None:
        self._pictures = pictures
        self._prepare = prepare
        self._batch_size = batch_size

    def __getitem__(self, number: int) -> tuple[list[int], Any]:
        start = number * self._batch_size
        end = min(start + self._batch_size, len(self._pictures))
        indices, batch = readable(self._pictures, range(start, end))
        return indices, self._prepare(indices, batch) if batch else ()


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


def resized(pictures: Sequence[Picture], size: int) -> Float[Tensor, "batch features"]:
    """Return every picture at ``size`` x ``size``, flat, in [0, 1]."""
    if len({picture.shape for picture in pictures}) == 1:
        whole = resize(torch.stack(list(pictures)), [size, size], antialias=True)
    else:
        whole = torch.stack([resize(picture, [size, size], antialias=True) for picture in pictures])
    pixels: Tensor = whole.flatten(1).float().div_(255)
    return pixels
