"""Collectives: the identity in one process, in rank order in two."""

import pytest
import torch

from swav import distributed


def test_one_process_is_the_identity():
    local = torch.randn(2, 3, requires_grad=True)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    gathered = distributed.all_gather(local)
    assert torch.equal(gathered, local[None])
    assert not gathered.requires_grad
    assert torch.equal(distributed.all_reduce_mean(local), local)
    assert torch.equal(distributed.all_reduce_max(local), local)


def collect(local: torch.Tensor) -> dict[str, object]:
    return {
        "rank": distributed.rank(),
        "world": distributed.world_size(),
        "gathered": distributed.all_gather(local.T),
        "mean": distributed.all_reduce_mean(local),
        "max": distributed.all_reduce_max(local),
        "scalar": distributed.all_gather(local.sum()),
        "sum": distributed.all_reduce_sum(local),
        "whole": distributed.all_reduce_max(local.long()),
    }


@pytest.mark.ranks
def test_two_ranks_see_both_shares_in_rank_order(run_on_ranks):
    shares = [torch.tensor([[1.0, 5.0], [2.0, -7.0]]), torch.tensor([[3.0, 4.0], [0.0, -9.0]])]
    answers = run_on_ranks(2, collect, shares)
    for rank, answer in enumerate(answers):
        assert (answer["rank"], answer["world"]) == (rank, 2)
        assert torch.equal(answer["gathered"], torch.stack([share.T for share in shares]))
        assert torch.equal(answer["mean"], torch.tensor([[2.0, 4.5], [1.0, -8.0]]))
        assert torch.equal(answer["max"], torch.tensor([[3.0, 5.0], [2.0, -7.0]]))
        assert torch.equal(answer["sum"], torch.tensor([[4.0, 9.0], [2.0, -16.0]]))
        assert torch.equal(answer["scalar"], torch.tensor([1.0, -2.0]))
        assert torch.equal(answer["whole"], torch.tensor([[3, 5], [2, -7]]))


def gradient_of_all_pairs(share: tuple[torch.Tensor, bool]) -> torch.Tensor:
    """Return the gradient of a loss over all rows: the same on every rank, or of its own rows."""
    local, is_same = share
    leaf = local.clone().requires_grad_()
    rows = distributed.all_gather_with_grad(leaf).flatten(0, 1)
    loss = (rows @ rows.T).exp().mean() if is_same else (leaf @ rows.T).exp().mean()
    loss.backward()
    return leaf.grad / distributed.world_size()  # as DDP does


@pytest.mark.ranks
@pytest.mark.parametrize("is_same", [True, False])
def test_the_gradient_of_all_pairs_is_that_of_one_rank(run_on_ranks, is_same):
    rows = torch.randn(6, 3)
    shares = [(rows[:3], is_same), (rows[3:], is_same)]
    gradients = torch.cat(run_on_ranks(2, gradient_of_all_pairs, shares))
    torch.testing.assert_close(gradients, gradient_of_all_pairs((rows, is_same)))


@pytest.mark.parametrize(
    ("environment", "local", "nodes"),
    [({}, 1, 1), ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 4, 2)],
)
def test_what_the_launcher_started(monkeypatch, environment, local, nodes):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed.local_world_size() == local
    assert distributed.launched_nodes() == nodes
