"""Pictures by their neighbours among the features of a run: the nearest, odd ones, duplicates."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from swav.config import UsageError
from swav.data.sources.decode import UnreadablePicture
from swav.data.sources.listing import PackedNames
from swav.data.sources.pictures import Pictures
from swav.data.sources.readers import Contents, Stack
from swav.evals import Features
from swav.ops.neighbours import Neighbours, alike, merged, nearest
from swav.run_folder.writers import printable

ODD_NEIGHBOURS = 5
DUPLICATE_COSINE = 0.98
"""Of centred features, as in the near duplicates of ``swav evaluate --tasks retrieval``."""
SAME = 1 - 1e-5
"""Cosine from which on pixels are compared: copies differ in the last bits of float32."""


class Match(NamedTuple):
    """A picture that is near to one that was asked for."""

    query: str
    rank: int
    path: str
    cosine: float


class Odd(NamedTuple):
    """A picture far from all others."""

    rank: int
    path: str
    distance: float
    """Mean of 1 - cosine over its nearest neighbours."""
    nearest: str
    """Path of the nearest one."""


class Duplicate(NamedTuple):
    """A member of a group of pictures that are nearly or wholly the same."""

    group: int
    path: str
    cosine: float
    """Of centred features, to the nearest other member."""
    same_pixels: bool
    """Whether another member has the same pixels."""


def nearest_to(queries: Features, gallery: Features, *, top: int) -> list[Match]:
    """Return the ``top`` pictures of the gallery with the largest cosine to each query.

    A query that is in the gallery finds itself.
    """
    found = nearest(
        queries.values, gallery.values, num_neighbours=_at_most(top, len(gallery.names))
    )
    names = printable(gallery.names)
    return [
        Match(query, rank, names[row], cosine)
        for query, rows, cosines in zip(
            printable(queries.names),
            found.indices.tolist(),
            found.similarities.tolist(),
            strict=True,
        )
        for rank, (row, cosine) in enumerate(zip(rows, cosines, strict=True), start=1)
    ]


def odd_ones(features: Features, *, top: int) -> list[Odd]:
    """Return the pictures whose five nearest neighbours are farthest on average, by 1 - cosine."""
    found = _neighbours(features, ODD_NEIGHBOURS)
    distances = (1 - found.similarities).mean(dim=1)
    names = printable(features.names)
    order = distances.argsort(descending=True, stable=True)[: _at_most(top, len(names))]
    return [
        Odd(rank, names[row], float(distances[row]), names[int(found.indices[row, 0])])
        for rank, row in enumerate(order.tolist(), start=1)
    ]


def duplicates(
    features: Features, pictures: Pictures, *, cosine: float = DUPLICATE_COSINE
) -> list[Duplicate]:
    """Return groups of pictures that are linked by pairs of near duplicates, the largest first.

    A pair has centred features with a cosine of at least ``cosine``, or the same pixels. Features
    are centred since those that are never negative all point into one corner.

    Args:
        features: of the pictures.
        pictures: by whose pixels copies are told from near duplicates.
        cosine: bound of a pair.
    """
    if not 0 < cosine <= 1:
        raise UsageError(f"cosine {cosine} must lie in (0, 1]")
    is_candidate = _neighbours(features, 1).similarities[:, 0] >= SAME
    centred = F.normalize((features.values - features.values.mean(dim=0)).float(), dim=1)
    groups = alike(centred, least=min(cosine, SAME))
    sizes = torch.bincount(groups)[groups]
    candidates = ((sizes > 1) | is_candidate).nonzero()[:, 0].tolist()
    digests = _digests(pictures, [features.names[row] for row in candidates])
    first_of: dict[bytes, int] = {}
    pairs = [
        (first_of.setdefault(digest, row), row)
        for row, digest in zip(candidates, digests, strict=True)
        if digest
    ]
    copies = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    copied = set(copies[copies[:, 0] != copies[:, 1]].flatten().tolist())
    return _members(features, centred, merged(groups, copies), copied)


def cropped(pictures: Pictures, crop: tuple[int, int, int, int]) -> Pictures:
    """Return a box of the only picture, given as x, y, width and height in its pixels.

    Raises:
        ValueError: if there are several pictures, or the box is not inside of the picture.
    """
    if len(pictures) != 1:
        raise UsageError(f"--crop is of one picture, and {pictures.data} has {len(pictures)}")
    picture = pictures[0]
    x, y, width, height = crop
    if min(x, y) < 0 or min(width, height) < 1:
        raise UsageError(f"crop {x},{y},{width},{height}: x,y from 0, width and height from 1")
    if x + width > picture.shape[2] or y + height > picture.shape[1]:
        raise UsageError(
            f"crop {x},{y},{width},{height} reaches beyond the picture, which is "
            f"{picture.shape[2]} x {picture.shape[1]}"
        )
    box = picture[:, y : y + height, x : x + width].contiguous()
    contents = Contents(Stack(box[None]), PackedNames(pictures.names))
    return Pictures(pictures.data, contents, channels=pictures.channels)


def _neighbours(features: Features, number: int) -> Neighbours:
    others = len(features.names) - 1
    if others < 1:
        raise UsageError("one picture alone has no neighbours: give a set of pictures")
    values = features.values
    return nearest(values, values, num_neighbours=min(number, others), leave_one_out=True)


def _at_most(top: int, available: int) -> int:
    if top < 1:
        raise UsageError(f"top {top} must be 1 or more")
    return min(top, available)


def _members(
    features: Features,
    centred: Tensor,
    groups: Int64[Tensor, " images"],
    copied: set[int],
) -> list[Duplicate]:
    """Return the members of the groups of several, the largest group first."""
    sizes, names = torch.bincount(groups), printable(features.names)
    order = sizes.argsort(descending=True, stable=True)
    rows_of = np.split(groups.argsort(stable=True).numpy(), sizes.cumsum(0)[:-1].numpy())
    members = []
    for number, group in enumerate(order[: int((sizes > 1).sum())].tolist(), start=1):
        rows = rows_of[group].tolist()
        values = centred[rows]
        found = nearest(values, values, num_neighbours=1, leave_one_out=True)
        cosines = found.similarities[:, 0].tolist()
        members += [
            Duplicate(number, names[row], cosine, row in copied)
            for row, cosine in zip(rows, cosines, strict=True)
        ]
    return members


def _digests(pictures: Pictures, names: Iterable[str]) -> list[bytes]:
    """Return a digest of the pixels of each picture; none of those that cannot be read."""
    index = {name: row for row, name in enumerate(pictures.names)}
    index |= dict(zip(printable(pictures.names), range(len(pictures)), strict=True))
    digests = []
    for name in names:
        try:
            pixels = pictures[index[name]]
        except (KeyError, UnreadablePicture):
            digests.append(b"")
            continue
        digest = blake2b(repr(tuple(pixels.shape)).encode(), digest_size=16)
        digest.update(pixels.contiguous().numpy().data)
        digests.append(digest.digest())
    return digests
