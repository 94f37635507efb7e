"""Permutations of tiles that are easy to tell apart (Noroozi & Favaro, 2016, algorithm 1)."""

from functools import lru_cache
from itertools import chain, permutations
from math import factorial

import numpy as np
from jaxtyping import UInt8

Permutations = UInt8[np.ndarray, "permutations tiles"]


@lru_cache(maxsize=4)
def permutation_set(num_permutations: int, *, num_tiles: int = 9, seed: int = 0) -> Permutations:
    """Return different permutations that have a large Hamming distance to each other.

    Greedy: the first is drawn by ``seed``; each next one is, of all that are left, the one with
    the largest sum of distances to those chosen, the first in lexicographic order among equals.
    Kept in memory once generated (2,000 of nine tiles take seconds); not to be written to.

    Raises:
        ValueError: if there are not that many permutations.
    """
    most = factorial(num_tiles)
    if not 2 <= num_permutations <= most:
        raise ValueError(
            f"num_permutations {num_permutations} of {num_tiles} tiles: give 2 to {most:,}"
        )
    every = chain.from_iterable(permutations(range(num_tiles)))
    candidates = np.fromiter(every, np.uint8, most * num_tiles).reshape(most, num_tiles)
    # each comparison reads one column from end to end
    columns = np.ascontiguousarray(candidates.T)
    # the sums grow by what the newest adds: comparing with all again would be quadratic
    distances = np.zeros(most, dtype=np.int32)
    chosen = [int(np.random.default_rng(seed).integers(most))]
    while len(chosen) < num_permutations:
        newest = candidates[chosen[-1]]
        for column, tile in zip(columns, newest, strict=True):
            distances += column != tile
        distances[chosen[-1]] = np.iinfo(np.int32).min // 2  # never again
        chosen.append(int(distances.argmax()))
    spread_out: Permutations = candidates[chosen]
    spread_out.flags.writeable = False  # the cache hands out this very array
    return spread_out
