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
    distributed.barrier()


def collect(local: torch.Tensor) -> dict[str, object]:
    distributed.barrier()
    return {
        "rank": distributed.rank(),
        "world": distributed.world_size(),
        "gathered": distributed.all_gather(local.T),
        "mean": distributed.all_reduce_mean(local),
        "max": distributed.all_reduce_max(local),
        "scalar": distributed.all_gather(local.sum()),
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
        assert torch.equal(answer["scalar"], torch.tensor([1.0, -2.0]))
        assert torch.equal(answer["whole"], torch.tensor([[3, 5], [2, -7]]))


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
