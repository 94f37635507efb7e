"""A batch of views: what a method sees of the data, labels never among it."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Batch(NamedTuple):
    """Several views of the same pictures, target views first.

    Views of one shape may stand next to views of another; all have the same ``batch`` rows,
    and row ``i`` of every view shows picture ``indices[i]``.
    """

    views: tuple[Float[Tensor, "batch channels _ _"], ...]
    """Normalised pictures."""
    num_targets: int
    """The first ``num_targets`` views give codes (keys, targets); all views are scored."""
    indices: Int[Tensor, " batch"]
    """Positions in the data set."""
    pretext: Int[Tensor, " batch ..."] | None = None
    """Permutation, angle or position that a pretext task has to name."""
    targets: tuple[Float[Tensor, "targets batch _"], ...] | None = None
    """What the views have to predict, ``targets[head][view]``, where it was made over all
    micro-batches of a step; None to make it of this batch alone."""

    @property
    def answers(self) -> Int[Tensor, "batch ..."]:
        """What a pretext task has to name.

        Raises:
            ValueError: if the batch was made without a pretext task.
        """
        if self.pretext is None:
            raise ValueError(
                "a batch without answers: make it with StepViews(..., pretext=config.pretext)"
            )
        return self.pretext
