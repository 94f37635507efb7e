"""Losses that keep their precision where the network computes in half of it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def in_float32(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the loss computed in float32 at least, whatever the autocast and the inputs.

    Cosines over a small temperature, and sums over a batch, do not survive half precision.
    """

    def widened(value: Any) -> Any:
        # a float64 input, such as in gradcheck, stays what it is
        is_half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if is_half else value

    @wraps(loss)
    def wrapped(*tensors: Tensor, **settings: Any) -> Tensor:
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*map(widened, tensors), **settings)

    return wrapped
