"""Assignment of pictures to prototypes under an equal-share constraint."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from swav import distributed


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "batch prototypes"], *, epsilon: float, iterations: int = 3
) -> Float[Tensor, "batch prototypes"]:
    """Return soft codes that share the pictures of all ranks equally between prototypes.

    Sinkhorn-Knopp on ``exp(scores / epsilon)`` (SwAV, sec. 3.1) in log space, so that no
    epsilon overflows. ``batch`` is this rank's share; prototype totals are taken over all
    ranks. Every row of the result sums to one; a picture whose scores are all ``-inf``, which
    can go nowhere, gets the uniform row and takes no share from the others.

    Args:
        scores: similarity of pictures to prototypes, any finite value or ``-inf``.
        epsilon: entropy of the codes; lower is closer to a hard assignment.
        iterations: rounds of (prototypes, pictures) normalisation; with 0 the softmax.

    Raises:
        ValueError: if ``epsilon`` is not positive or ``iterations`` is negative.
    """
    if not epsilon > 0:
        raise ValueError(
            f"epsilon {epsilon} must be positive: SwAV uses 0.05, small data 0.02-0.05"
        )
    if iterations < 0:
        raise ValueError(f"iterations {iterations} must not be negative: SwAV uses 3")
    # float32 rounds scores / epsilon by up to 6e-5 where epsilon is 0.001; MPS has nothing wider
    precision = torch.float32 if scores.device.type == "mps" else torch.float64
    with torch.autocast(scores.device.type, enabled=False):
        log_codes = scores.to(precision) / epsilon
        for _ in range(iterations):
            shares = distributed.all_gather(log_codes.logsumexp(dim=0))
            log_codes = log_codes - _finite(shares.logsumexp(dim=0))
            log_codes = log_codes - _finite(log_codes.logsumexp(dim=1, keepdim=True))
        nowhere = log_codes.isneginf().all(dim=1, keepdim=True)
        return log_codes.masked_fill(nowhere, 0).softmax(dim=1).float()


def _finite(log_mass: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the mass to divide by, one where there is none."""
    return log_mass.masked_fill(log_mass.isneginf(), 0)


def hard_codes(
    codes: Float[Tensor, "batch prototypes"],
) -> Float[Tensor, "batch prototypes"]:
    """Return the codes with all mass on the largest entry of each row (SwAV, sec. 3.1)."""
    return F.one_hot(codes.argmax(dim=1), codes.shape[1]).to(codes.dtype)
