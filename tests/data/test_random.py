"""Philox against its published vectors, and the uniform numbers made of it."""

import numpy as np
import pytest
from scipy import stats

from swav.data.random import Stream, philox, uniforms


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0x00000000, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (0xFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ],
)
def test_the_vectors_of_random123(word, expected):
    counter = np.full((1, 4), word, dtype=np.uint64)
    assert philox(counter, (word, word)).tolist() == [expected]


def test_an_answer_depends_on_its_counter_alone():
    counters = np.random.default_rng(0).integers(0, 2**32, (3, 5, 4), dtype=np.uint64)
    words = philox(counters, (7, 9))
    for row in range(3):
        for column in range(5):
            alone = philox(counters[row, column][None], (7, 9))[0]
            assert (words[row, column] == alone).all()
    assert words.max() < 2**32


def draws(indices, *, seed=0, epoch=0, view=0, num_draws=36):
    return uniforms(
        seed=seed, epoch=epoch, indices=np.asarray(indices), view=view, num_draws=num_draws
    )


def test_a_picture_keeps_its_numbers_in_any_batch():
    whole = draws([5, 2, 9, 1])
    assert np.array_equal(draws([9])[0], whole[2])
    assert np.array_equal(draws([1, 5]), whole[[3, 0]])
    assert np.array_equal(draws([5, 2, 9, 1], num_draws=7), whole[:, :7])


def test_every_coordinate_matters():
    base = draws([3])
    big = 1 << 32
    others = (draws([4]), draws([3], seed=1), draws([3], seed=big), draws([3], epoch=1))
    for other in (*others, draws([3], view=1)):
        assert not np.intersect1d(base, other).size


def test_numbers_are_uniform_and_unrelated():
    numbers = draws(np.arange(4000), num_draws=36)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-5
    related = np.corrcoef(numbers.T) - np.eye(36)
    assert np.abs(related).max() < 5 / np.sqrt(4000)


def test_the_number_of_a_stream_never_changes():
    """Runs that are resumed, golden losses and scores depend on them."""
    assert {stream.name: int(stream) for stream in Stream} == {
        "PRETEXT_TASKS": 65536,
        "GROUPS": 131072,
        "ORDER": 478660552050,
        "CLUSTERS": 1668052339,
        "LINEAR_SGD": 1818848768,
        "PART_RETRIEVAL": 1885434484,
        "PATCH_KMEANS": 1885434979,
        "ONLINE_EVALUATION": 1885696617,
        "LABEL_FREE": 1818321510,
    }
