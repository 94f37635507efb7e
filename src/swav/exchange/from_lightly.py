"""Files of networks built as in lightly's examples: ``backbone``, ``projection_head.layers``.

The examples put the children of a torchvision ResNet in a row, so they have numbers for names.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from swav.exchange.parts import Parts, renamed, split, with_heads

RESNET = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}
"""Children of a torchvision ResNet with tensors; between them are ReLU and pooling."""
OWN = re.compile(r"projection_head\.layers\.|prototypes\.(heads|layers)\.|backbone\.[014567]\.")


def parts(tensors: Mapping[str, Tensor]) -> Parts | None:
    """Return the parts, None if the tensors are named in another way."""
    backbone, rest = split(tensors, "backbone.")
    if not backbone or not any(OWN.match(key) for key in tensors):
        return None
    return with_heads(
        "lightly",
        renamed(backbone, _name),
        rest,
        head="projection_head.layers.",
        prototypes="prototypes.",
    )


def _name(key: str) -> str:
    child, dot, name = key.partition(".")
    return f"{RESNET.get(child, child)}{dot}{name}"
