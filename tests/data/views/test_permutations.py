"""The set of permutations: greedy in the largest Hamming distance, as a brute force finds it."""

from itertools import permutations

import numpy as np
import pytest

from swav.data.views.permutations import permutation_set


def hamming(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("num_tiles", [3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_is_the_farthest_of_all_that_are_left(num_tiles: int, seed: int) -> None:
    found = [tuple(row) for row in permutation_set(6, num_tiles=num_tiles, seed=seed).tolist()]
    left = list(permutations(range(num_tiles)))
    chosen = [found[0]]
    left.remove(found[0])
    while len(chosen) < 6:
        distances = [sum(hamming(each, other) for other in chosen) for each in left]
        farthest = left[distances.index(max(distances))]
        chosen.append(farthest)
        left.remove(farthest)
    assert found == chosen


def test_nine_tiles_are_as_far_apart_as_can_be_at_first() -> None:
    found = permutation_set(40)
    assert len({tuple(row) for row in found.tolist()}) == 40
    assert np.array_equal(np.sort(found, axis=1), np.tile(np.arange(9), (40, 1)))
    distances = (found[:9, None] != found[None, :9]).sum(axis=2)
    assert (distances + 9 * np.eye(9) == 9).all()  # nine permutations can differ everywhere


def test_the_seed_decides_and_the_set_is_kept() -> None:
    assert permutation_set(5, num_tiles=4) is permutation_set(5, num_tiles=4)
    other = permutation_set(5, num_tiles=4, seed=3)
    assert not np.array_equal(other, permutation_set(5, num_tiles=4))
    with pytest.raises(ValueError, match="read-only"):
        other[0, 0] = 1


def test_all_permutations_are_the_most_there_can_be() -> None:
    assert len({tuple(row) for row in permutation_set(24, num_tiles=4).tolist()}) == 24
    with pytest.raises(ValueError, match="num_permutations 25 of 4 tiles: give 2 to 24"):
        permutation_set(25, num_tiles=4)
