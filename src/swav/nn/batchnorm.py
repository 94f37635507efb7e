"""BatchNorm statistics: keep them still, or make them equal on all ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from swav import distributed


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Leave every running statistic as it was, whatever is computed inside in train mode."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@torch.no_grad()
def synchronise_statistics(module: nn.Module) -> None:
    """Replace floating-point buffers by their mean over ranks, before evaluating or saving."""
    if distributed.world_size() > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(distributed.all_reduce_mean(buffer))
