"""Losses, as the papers state them."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor


def swapped_pairs(num_targets: int, num_views: int) -> Iterator[tuple[int, int]]:
    """Yield (target, prediction): every view but the target itself predicts each target."""
    for target in range(num_targets):
        for prediction in range(num_views):
            if prediction != target:
                yield target, prediction


def swapped_prediction(
    scores: Float[Tensor, "batch prototypes"],
    codes: Float[Tensor, "batch prototypes"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of one view's softmax against another view's codes (SwAV, eq. 2).

    The mean is over this rank's pictures. Gradient flows to ``scores`` only; its lower bound is
    the entropy of the codes.
    """
    log_probabilities = (scores.float() / temperature).log_softmax(dim=1)
    return -(codes.detach() * log_probabilities).sum(dim=1).mean()
