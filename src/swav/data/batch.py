"""A batch of views, or of their features: what a method sees of the data, never a label."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from swav.nn.backbones import encode_views


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

    def encode(self, backbone: nn.Module) -> list[Float[Tensor, "batch features"]]:
        """Return the features of every view."""
        return encode_views(backbone, self.views)

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


class FeatureBatch(NamedTuple):
    """Features of several views of the same pictures, by a backbone that is not trained.

    Row ``i`` of every view stands for picture ``indices[i]``; it may be of another picture that
    counts as a view of it.
    """

    views: tuple[Float[Tensor, "batch features"], ...]
    """Not normalised."""
    num_targets: int
    """The first ``num_targets`` views give codes; all views are scored."""
    indices: Int[Tensor, " batch"]
    """Positions in the data set."""
    targets: tuple[Float[Tensor, "targets batch _"], ...] | None = None
    """As a ``Batch`` has them."""

    def encode(self, _backbone: nn.Module) -> list[Float[Tensor, "batch features"]]:
        """Return the features, which the backbone has made already."""
        return list(self.views)


AnyBatch = Batch | FeatureBatch
"""What a method that needs no more than features can learn from."""
