"""BatchNorm statistics: still while asked, and equal on all ranks when asked."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from swav.nn.batchnorm import (
    convert_to_sync_batchnorm,
    frozen_statistics,
    keep_statistics,
    statistics_of_ranks,
    synchronise_statistics,
    synchronised_statistics,
    take_own_statistics,
)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def test_statistics_stay_and_the_batch_is_still_used():
    norm = nn.BatchNorm1d(3)
    norm(torch.randn(6, 3))
    before = state(norm)
    rows = torch.randn(6, 3) + 4
    with frozen_statistics(norm):
        inside = norm(rows)
        assert norm.num_batches_tracked == 2
    torch.testing.assert_close(inside.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-6)
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name])


def test_statistics_stay_after_an_error():
    norm = nn.BatchNorm1d(3)
    before = state(norm)

    def fail() -> None:
        norm(torch.randn(6, 3) + 4)
        raise KeyError

    with pytest.raises(KeyError), frozen_statistics(norm):
        fail()
    assert torch.equal(norm.running_mean, before["running_mean"])


def test_one_process_keeps_its_statistics():
    norm = nn.BatchNorm1d(3)
    norm(torch.randn(6, 3))
    before = state(norm)
    synchronise_statistics(norm)
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name])


def synchronised(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    norm = nn.BatchNorm1d(3)
    norm(rows)
    synchronise_statistics(norm)
    return state(norm)


@pytest.mark.ranks
def test_ranks_share_the_mean_of_their_statistics(run_on_ranks):
    rows = torch.randn(2, 6, 3) + torch.tensor([0.0, 5.0])[:, None, None]
    first, second = run_on_ranks(2, synchronised, list(rows))
    for name in first:
        assert torch.equal(first[name], second[name])
    expected = 0.1 * rows.mean(dim=(0, 1))
    torch.testing.assert_close(first["running_mean"], expected)
    assert first["num_batches_tracked"] == 1


def kept_apart(rows: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """Return a rank's statistics before, inside and after, and once they were taken back."""
    norm = nn.BatchNorm1d(3)
    norm(rows)
    before, by_rank = state(norm), statistics_of_ranks(norm)
    with synchronised_statistics(norm):
        inside = state(norm)
    after = state(norm)
    synchronise_statistics(norm)
    take_own_statistics(norm, by_rank)
    return {"before": before, "inside": inside, "after": after, "taken": state(norm)}


@pytest.mark.ranks
def test_ranks_go_on_with_their_own_statistics(run_on_ranks):
    first, second = run_on_ranks(2, kept_apart, [torch.randn(6, 3), torch.randn(6, 3) + 5])
    assert not torch.equal(first["before"]["running_mean"], second["before"]["running_mean"])
    for name in first["before"]:
        assert torch.equal(first["inside"][name], second["inside"][name])
        for rank in (first, second):
            assert torch.equal(rank["after"][name], rank["before"][name])
            assert torch.equal(rank["taken"][name], rank["before"][name])


def test_synchronised_batchnorms_keep_what_timm_has_in_them() -> None:
    """The activation, and statistics that stay."""
    network = nn.Sequential(BatchNormAct2d(3), BatchNormAct2d(3))
    keep_statistics(network[1])
    convert_to_sync_batchnorm(network)
    for norm in network:
        assert isinstance(norm, nn.SyncBatchNorm)
        assert isinstance(norm.act, nn.ReLU)
    network.train()
    assert [norm.training for norm in network] == [True, False]
