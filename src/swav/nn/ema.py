"""Exponential moving average of a module's weights."""

import copy

import torch
from torch import nn


class MovingAverage(nn.Module):
    """A copy of a module that follows it slowly; never trained itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.average = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, momentum: float) -> None:
        """Move the average towards ``module``: momentum x average + (1 - momentum) x weights.

        Buffers (BatchNorm statistics), which are averages themselves, are copied.
        """
        for average, weight in zip(self.average.parameters(), module.parameters(), strict=True):
            average.lerp_(weight, 1 - momentum)
        # averaging them again would lag twice behind
        for copied, buffer in zip(self.average.buffers(), module.buffers(), strict=True):
            copied.copy_(buffer)
