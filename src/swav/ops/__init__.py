"""Pure functions of tensors."""

from swav.ops.assign import hard_codes, sinkhorn
from swav.ops.losses import swapped_pairs, swapped_prediction

__all__ = ["hard_codes", "sinkhorn", "swapped_pairs", "swapped_prediction"]
