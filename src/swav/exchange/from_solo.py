"""Files of solo-learn: ``backbone`` (once ``encoder``), ``projector``, ``prototypes``."""

from collections.abc import Mapping

from torch import Tensor

from swav.exchange.parts import Parts, split, with_heads

OWN = ("projector.", "momentum_projector.", "momentum_backbone.", "classifier.weight")


def parts(tensors: Mapping[str, Tensor]) -> Parts | None:
    """Return the parts, None if the tensors are named in another way."""
    for prefix in ("backbone.", "encoder."):
        backbone, rest = split(tensors, prefix)
        if backbone and any(key.startswith(OWN) for key in rest):
            return with_heads(
                "solo-learn", backbone, rest, head="projector.", prototypes="prototypes."
            )
    return None
