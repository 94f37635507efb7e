"""Noise-contrastive estimation against a memory bank, as PIRL states it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from swav.ops.autocast import in_float32

_NO_NOISE = -1e4
"""The logarithm for a row that has no negative left: its loss and gradient are zero."""


@in_float32
def memory_nce(
    embeddings: Float[Tensor, "batch embed"],
    memories: Float[Tensor, "batch embed"],
    negatives: Float[Tensor, "chosen embed"],
    same: Bool[Tensor, "batch chosen"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return ``-log h(memory) - sum over negatives of log(1 - h(negative))``, the mean over rows.

    Misra and van der Maaten (2020), eqs. 3 and 4, with the embedding as the one that everything
    is compared to: ``h(c) = e(c) / (e(c) + sum over negatives of e(n))`` and ``e(c)`` the
    exponential of cosine over ``temperature``. Gradient flows to ``embeddings`` only, where the
    others come from a bank.

    Args:
        embeddings: unit vectors.
        memories: of the same pictures, unit vectors.
        negatives: of other pictures, unit vectors.
        same: which negatives are of the row's own picture after all; they do not count.
        temperature: of the cosines.
    """
    positive = (embeddings * memories).sum(dim=1) / temperature
    negative = (embeddings @ negatives.T / temperature).masked_fill(same, -torch.inf)
    noise = negative.logsumexp(dim=1).clamp(min=_NO_NOISE)
    log_positive = positive - torch.logaddexp(positive, noise)
    log_not_negative = noise[:, None] - torch.logaddexp(negative, noise[:, None])
    return -(log_positive + log_not_negative.sum(dim=1)).mean()
