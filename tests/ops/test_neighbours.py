"""Cosine neighbours against a loop over pairs."""

import pytest
import torch
import torch.nn.functional as F

from swav.ops.neighbours import chunk_size, nearest


def random_rows(num_rows: int, seed: int) -> torch.Tensor:
    return torch.randn(num_rows, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_the_most_similar_rows_come_first(chunk):
    queries, gallery = random_rows(9, 0), random_rows(31, 1)
    found = nearest(queries, gallery, num_neighbours=5, chunk=chunk)
    for row, query in enumerate(queries):
        cosines = torch.stack([F.cosine_similarity(query, key, dim=0) for key in gallery])
        order = sorted(range(31), key=lambda each: -cosines[each])[:5]
        assert found.indices[row].tolist() == order
        torch.testing.assert_close(found.similarities[row], cosines[order])


@pytest.mark.parametrize("chunk", [3, 1000])
def test_leave_one_out_is_a_search_without_that_row(chunk):
    rows = random_rows(11, 2)
    found = nearest(rows, rows, num_neighbours=10, leave_one_out=True, chunk=chunk)
    for row in range(11):
        others = [other for other in range(11) if other != row]
        alone = nearest(rows[row : row + 1], rows[others], num_neighbours=10)
        assert found.indices[row].tolist() == [others[each] for each in alone.indices[0]]


def test_a_duplicate_may_be_a_neighbour_but_not_the_row_itself():
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    found = nearest(rows, rows, num_neighbours=1, leave_one_out=True)
    assert found.indices[:2, 0].tolist() == [1, 0]
    torch.testing.assert_close(found.similarities[:2, 0], torch.ones(2))


def test_length_does_not_matter_and_zero_is_similar_to_nothing():
    gallery = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [1e-3, 1e-3]])
    found = nearest(torch.tensor([[1e3, 1e3]]), gallery, num_neighbours=3)
    assert found.indices.tolist() == [[2, 0, 1]]
    torch.testing.assert_close(found.similarities, torch.tensor([[1.0, 0.0, -(0.5**0.5)]]))


def test_no_queries_have_no_neighbours():
    found = nearest(random_rows(0, 0), random_rows(4, 0), num_neighbours=2)
    assert found.similarities.shape == found.indices.shape == (0, 2)


@pytest.mark.parametrize(("asked", "alone"), [(0, False), (5, False), (4, True)])
def test_asking_for_more_than_there_are_is_refused(asked, alone):
    rows = random_rows(4, 0)
    with pytest.raises(ValueError, match=f"{asked} neighbours of a gallery of 4"):
        nearest(rows, rows, num_neighbours=asked, leave_one_out=alone)


def test_a_large_gallery_is_compared_with_fewer_queries_at_a_time():
    assert chunk_size(50_000) == 512
    assert chunk_size(1_281_167) * 1_281_167 <= 2**25
    assert chunk_size(10**9) == 1
