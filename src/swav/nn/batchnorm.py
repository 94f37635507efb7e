"""BatchNorm statistics: keep them still, equal on all ranks, or each rank's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swav import distributed


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Leave every running statistic as it was, whatever is computed inside in train mode."""
    # all buffers, the count of batches too: momentum None would average by it
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@torch.no_grad()
def synchronise_statistics(module: nn.Module) -> None:
    """Replace floating-point buffers by their mean over ranks, once training is done."""
    if distributed.world_size() > 1:
        for buffer in module.buffers():
            # the count of batches is an integer, and the same on all ranks
            if buffer.is_floating_point():
                buffer.copy_(distributed.all_reduce_mean(buffer))


@contextmanager
def synchronised_statistics(module: nn.Module) -> Iterator[None]:
    """Make floating-point buffers their mean over ranks inside, to save or to evaluate."""
    # training goes on with each rank's own: a mean rounds (2.4e-7 after a few saves), so how often
    # a run is saved would change what it learns
    with frozen_statistics(module):
        synchronise_statistics(module)
        yield


def statistics_of_ranks(module: nn.Module) -> dict[str, Float[Tensor, "ranks ..."]]:
    """Return the floating-point buffers of all ranks, by name; none in a single process."""
    if distributed.world_size() == 1:
        return {}
    return {
        name: distributed.all_gather(buffer)
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point()
    }


@torch.no_grad()
def take_own_statistics(
    module: nn.Module, by_rank: Mapping[str, Float[Tensor, "ranks ..."]]
) -> None:
    """Put back this rank's part of ``statistics_of_ranks``, if there are as many ranks as then."""
    buffers = dict(module.named_buffers())
    for name, statistics in by_rank.items():
        if len(statistics) == distributed.world_size():
            buffers[name].copy_(statistics[distributed.rank()])
