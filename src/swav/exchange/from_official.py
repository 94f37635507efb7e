"""Files of SwAV's own code, which trained DeepCluster-v2 and SeLa-v2 too.

A ResNet with the names of torchvision, ``projection_head`` and ``prototypes``: of several heads
``prototypes.prototypes0`` and on.
"""

from collections.abc import Mapping

from torch import Tensor

from swav.exchange.parts import Parts, with_heads


def parts(tensors: Mapping[str, Tensor]) -> Parts | None:
    """Return the parts, None if the tensors are named in another way."""
    own = ("projection_head.", "prototypes.")
    rest = {key: value for key, value in tensors.items() if key.startswith(own)}
    if not rest or "conv1.weight" not in tensors or any("layers." in key for key in rest):
        return None
    backbone = {key: value for key, value in tensors.items() if key not in rest}
    return with_heads("swav", backbone, rest, head="projection_head.", prototypes="prototypes.")
