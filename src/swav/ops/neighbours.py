"""Nearest neighbours by cosine, exactly, in chunks of queries so that memory stays bounded."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

FASTEST_CHUNK = 512
"""Queries at a time: the best of 128 to 1,024 on two cores against 50,000 rows."""
MOST_COSINES = 2**25
"""At a time, 128 MiB."""


class Neighbours(NamedTuple):
    """The nearest rows of a gallery for every query, the nearest first."""

    similarities: Float[Tensor, "batch neighbours"]
    """Cosines."""
    indices: Int64[Tensor, "batch neighbours"]
    """Rows of the gallery."""


def chunk_size(num_images: int) -> int:
    """Return how many queries to compare with a gallery at a time."""
    return max(1, min(FASTEST_CHUNK, MOST_COSINES // max(num_images, 1)))


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "batch features"],
    gallery: Float[Tensor, "images features"],
    *,
    num_neighbours: int,
    leave_one_out: bool = False,
    chunk: int | None = None,
) -> Neighbours:
    """Return the ``num_neighbours`` rows of ``gallery`` with the largest cosine to each query.

    With ``leave_one_out`` the queries are the gallery and no row is its own neighbour; a
    duplicate of it may be. Rows need not be normalised; a row of zeros has cosine 0 to all.

    Raises:
        ValueError: if the gallery has fewer rows than neighbours are asked for.
    """
    available = len(gallery) - leave_one_out
    if not 1 <= num_neighbours <= available:
        raise ValueError(
            f"{num_neighbours} neighbours of a gallery of {len(gallery)} pictures: "
            f"ask for 1 to {available}"
        )
    assert not leave_one_out or len(queries) == len(gallery)
    # float32: in half precision neighbours tie
    keys = F.normalize(gallery.float(), dim=1).T
    similarities, indices = [], []
    chunk = chunk or chunk_size(len(gallery))
    for start in range(0, len(queries), chunk):
        cosines = F.normalize(queries[start : start + chunk].float(), dim=1) @ keys
        if leave_one_out:
            # before topk: asking for one more and dropping the first would lose a duplicate
            cosines.diagonal(start).fill_(-torch.inf)
        top = cosines.topk(num_neighbours, dim=1)
        similarities.append(top.values)
        indices.append(top.indices)
    if not similarities:  # no queries
        empty = keys.new_empty(0, num_neighbours)
        return Neighbours(empty, empty.long())
    return Neighbours(torch.cat(similarities), torch.cat(indices))


def shared_neighbours(
    first: Int64[Tensor, "batch neighbours"], second: Int64[Tensor, "batch neighbours"]
) -> float:
    """Return the mean share of a query's neighbours that are in both lists, in any order."""
    shared = (first[:, :, None] == second[:, None, :]).any(dim=2)
    return float(shared.double().mean())


def alike(unit: Float[Tensor, "images features"], *, least: float) -> Int64[Tensor, " images"]:
    """Return the group of every row: rows with a cosine of ``least`` are linked, also by others.

    Rows are normalised. Memory is bounded even if all rows are the same.
    """
    groups = torch.arange(len(unit))
    # a pair takes four times as much memory as its cosine, and all may be pairs
    chunk = max(1, chunk_size(len(unit)) // 4)
    for start in range(0, len(unit), chunk):
        near = unit[start : start + chunk] @ unit[start:].T >= least
        groups = merged(groups, near.nonzero() + start)
    return groups


def merged(
    groups: Int64[Tensor, " images"], pairs: Int64[Tensor, "pairs 2"]
) -> Int64[Tensor, " images"]:
    """Return the groups of rows when those of the rows of each pair become one."""
    ends = groups[pairs].numpy()
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=2 * (len(groups),))
    _, of_group = connected_components(graph, directed=False)
    return torch.from_numpy(of_group.astype(np.int64))[groups]
