"""The queue against a list."""

import pytest
import torch

from swav import distributed
from swav.nn.queue import Queue, auto_length


def pushed(length: int, num_pushes: int, *, batch: int = 4) -> tuple[Queue, list[torch.Tensor]]:
    """Return a queue, and the list that each target's rows should be."""
    generator = torch.Generator().manual_seed(0)
    queue, lists = Queue(length), [[], []]
    for _ in range(num_pushes):
        embeddings = torch.randn(2, batch, 3, generator=generator)
        queue.enqueue(embeddings)
        for target in range(2):
            lists[target] = [*embeddings[target], *lists[target]][:length]
    return queue, [torch.stack(rows) for rows in lists]


@pytest.mark.parametrize("num_pushes", [1, 2, 3, 4, 7])
def test_the_newest_rows_of_every_target_the_newest_first(num_pushes):
    queue, expected = pushed(12, num_pushes)
    for target in range(2):
        assert torch.equal(queue.rank_rows(target), expected[target])
    assert queue.is_full == (num_pushes >= 3)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_of_the_ranks_cover_it(monkeypatch, world):
    queue, expected = pushed(12, 3)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(queue.rank_rows(1))
    assert {len(share) for share in shares} == {12 // world}
    found = sorted(tuple(row.tolist()) for row in torch.cat(shares))
    assert found == sorted(tuple(row.tolist()) for row in expected[1])


def test_only_a_full_queue_joins_the_batch():
    queue, _ = pushed(12, 2)
    rows = torch.randn(5, 3)
    assert torch.equal(queue.joined_to(rows, 1), rows)
    queue, expected = pushed(12, 3)
    assert torch.equal(queue.joined_to(rows, 1), torch.cat([rows, expected[1]]))


@pytest.mark.parametrize(
    ("wanted", "images", "batch", "at_least", "length"),
    [
        (320, 1000, 64, 0, 320),
        (300, 1000, 64, 0, 256),
        (320, 400, 64, 0, 192),
        (320, 100, 64, 64, 64),
    ],
)
def test_auto_is_whole_batches_of_half_the_pictures(wanted, images, batch, at_least, length):
    found = auto_length(wanted, num_images=images, global_batch=batch, at_least=at_least)
    assert found == length


def test_no_queue_is_never_full():
    queue = Queue(0)
    assert not queue.is_full
    queue.enqueue(torch.randn(2, 4, 3))
    assert not queue.is_full


def test_state_comes_back_and_is_no_alias():
    queue, expected = pushed(12, 4)
    other = Queue(12)
    other.load_state_dict(queue.state_dict())
    queue.enqueue(torch.zeros(2, 4, 3))
    assert other.is_full
    assert torch.equal(other.rank_rows(0), expected[0])


def test_a_longer_saved_queue_is_refused():
    queue, _ = pushed(12, 3)
    with pytest.raises(
        ValueError, match=r"saved queue has 12 rows, this run's length is 8.*queue_"
    ):
        Queue(8).load_state_dict(queue.state_dict())


def test_half_precision_comes_in_and_no_gradient():
    queue = Queue(4)
    queue.enqueue(torch.ones(1, 4, 3, dtype=torch.bfloat16, requires_grad=True))
    assert queue.rank_rows(0).dtype == torch.float32
    assert not queue.rank_rows(0).requires_grad


def enqueue_twice(share: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    queue = Queue(12)
    for embeddings in share:
        queue.enqueue(embeddings)
    return {"rows": queue.get_extra_state()["rows"], "share": queue.rank_rows(1)}


@pytest.mark.ranks
def test_two_ranks_hold_the_rows_of_both(run_on_ranks):
    first, second = torch.randn(2, 8, 3), torch.randn(2, 8, 3)
    shares = [(first[:, :4], second[:, :4]), (first[:, 4:], second[:, 4:])]
    answers = run_on_ranks(2, enqueue_twice, shares)
    expected = torch.cat([second, first[:, :4]], dim=1)
    for answer in answers:
        assert torch.equal(answer["rows"], expected)
    both = torch.cat([answer["share"] for answer in answers])
    assert sorted(both.tolist()) == sorted(expected[1].tolist())
