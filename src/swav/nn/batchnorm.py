"""BatchNorm statistics: keep them still, equal on all ranks, or each rank's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from timm.layers.norm_act import convert_sync_batchnorm as timm_convert
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from swav import distributed


class _Still(nn.Module):
    """A BatchNorm that never enters training mode; its weight and bias are trained as ever."""

    def train(self, _mode: bool = True) -> "_Still":
        return super().train(False)


def batchnorms(module: nn.Module) -> Iterator[nn.Module]:
    """Yield every BatchNorm within ``module``."""
    return filter(is_batchnorm, module.modules())


def is_batchnorm(module: nn.Module) -> bool:
    """Return whether a module is a BatchNorm of any dimension, timm's included."""
    return isinstance(module, _BatchNorm)


def keep_statistics(batchnorm: nn.Module) -> None:
    """Have a BatchNorm normalise by the statistics it has, for good, in its copies too."""
    if isinstance(batchnorm, _Still):
        return
    # of another class, in place: a mode would be lost at the next train() of a module around it
    own = type(batchnorm)
    batchnorm.__class__ = type(f"Still{own.__name__}", (_Still, own), {})
    batchnorm.eval()


def convert_to_sync_batchnorm(module: nn.Module) -> None:
    """Let every BatchNorm within ``module`` take its statistics over all ranks, if it takes any."""
    still = [name for name, each in module.named_modules() if isinstance(each, _Still)]
    # torch's own would leave out the activation that some of timm's have
    timm_convert(module)  # type: ignore[no-untyped-call]
    for name in still:  # a new module stands there now
        keep_statistics(module.get_submodule(name))


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
        for buffer in _own_statistics(module).values():
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
        name: distributed.all_gather(buffer) for name, buffer in _own_statistics(module).items()
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


def _own_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that may differ between ranks, by name."""
    # those that stay are equal anyway, and the mean of three equal numbers may be another
    still = {
        id(buffer)
        for each in module.modules()
        if isinstance(each, _Still)
        for buffer in each.buffers()
    }
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        # the count of batches is an integer, and the same on all ranks
        if buffer.is_floating_point() and id(buffer) not in still
    }
