"""Collectives over all ranks that are the identity in one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

_ALONE: list[bool] = []
"""Not empty while this process works without the others."""


@contextmanager
def alone() -> Iterator[None]:
    """Be a single process inside: the other ranks are done and would not answer."""
    _ALONE.append(True)
    try:
        yield
    finally:
        _ALONE.pop()


def leave() -> None:
    """Leave the ranks for good: with its threads still running a process may abort as it ends."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's rank, 0 in a single process."""
    return dist.get_rank() if _initialised() else 0


def world_size() -> int:
    """Return the number of ranks, 1 in a single process."""
    return dist.get_world_size() if _initialised() else 1


def all_gather(local: Shaped[Tensor, "..."]) -> Shaped[Tensor, "ranks ..."]:
    """Stack ``local`` from every rank, in rank order. No gradient flows back."""
    # gloo and nccl send memory as it lies
    local = local.detach().contiguous()
    if world_size() == 1:
        return local[None]
    by_rank = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(by_rank, local)
    return torch.stack(by_rank)


def all_gather_with_grad(local: Shaped[Tensor, "..."]) -> Shaped[Tensor, "ranks ..."]:
    """Stack ``local`` from every rank, in rank order, for a loss over all pairs.

    Backward sums the gradients of all ranks. As DDP averages over ranks afterwards, both a loss
    that is the same on every rank and one whose mean over ranks is meant give the gradient of
    one rank.
    """
    if world_size() == 1:
        return local[None]
    gathered: Tensor = _GatherWithGrad.apply(local)
    return gathered


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, local: Tensor) -> Tensor:
        return all_gather(local)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        # every rank's loss saw these rows, so their gradients come from all ranks
        return all_reduce_sum(gradients[0])[rank()]


def all_reduce_sum(local: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Return the sum of ``local`` over all ranks. No gradient flows back."""
    # a copy: all_reduce writes into what it is given
    total = local.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def all_reduce_mean(local: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Return the mean of ``local`` over all ranks. No gradient flows back."""
    # added up in rank order, so that all ranks have the same bits
    return all_gather(local).mean(dim=0)


def all_reduce_max(local: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Return the largest value of each element over all ranks. No gradient flows back."""
    return all_gather(local).amax(dim=0)


def local_world_size() -> int:
    """Return the ranks that the launcher started on this machine, 1 without a launcher."""
    return 1 if _ALONE else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launched_nodes() -> int:
    """Return the machines that the launcher started, 1 without a launcher."""
    return 1 if _ALONE else int(os.environ.get("WORLD_SIZE", "1")) // local_world_size()


def _initialised() -> bool:
    return not _ALONE and dist.is_available() and dist.is_initialized()
