"""The layers of a network in order, as timm groups them: to freeze some or train them slower."""

from typing import Any, Protocol, runtime_checkable

from timm.models import group_parameters
from torch import nn

from swav.nn.batchnorm import is_batchnorm, keep_statistics

WITH_THE_ONE_BEFORE = (99999,)
"""What timm's matchers call a tensor that counts with the layer before it."""


@runtime_checkable
class Grouped(Protocol):
    """A network of timm: it says which of its tensors belong together."""

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return patterns of names in the order of the layers; coarse: of stages."""


def parameter_layers(network: nn.Module, *, stages: bool = False) -> dict[str, int]:
    """Return the layer of each parameter by its name, the input's first.

    Final normalisation and convolution count with the last layer; a network that is not of timm
    is one layer.

    Args:
        network: to look at.
        stages: whether to count stages, which are of many blocks, in place of blocks.
    """
    if not isinstance(network, Grouped):
        return {name: 0 for name, _ in network.named_parameters()}
    matcher = network.group_matcher(coarse=stages)
    if isinstance(matcher, dict):  # a few are functions, which know every name
        matcher = {**matcher, "the rest": [("", WITH_THE_ONE_BEFORE)]}
    found: dict[str, int] = group_parameters(network, matcher, reverse=True)
    return found


def num_layers(network: nn.Module, *, stages: bool = False) -> int:
    """Return how many layers (or stages) a network has."""
    return max(parameter_layers(network, stages=stages).values()) + 1


def freeze_all_but(network: nn.Module, num_stages: int) -> None:
    """Freeze weights and BatchNorm statistics of all stages but the last ``num_stages``.

    Raises:
        ValueError: if there are fewer.
    """
    stages = parameter_layers(network, stages=True)
    total = max(stages.values()) + 1
    if num_stages > total:
        are = "is 1 stage" if total == 1 else f"are {total} stages"
        raise ValueError(f"there {are} in the network, not {num_stages}")
    frozen = {name for name, stage in stages.items() if stage < total - num_stages}
    for name, weight in network.named_parameters():
        if name in frozen:
            weight.requires_grad_(False)
    for name, module in network.named_modules():
        if f"{name}.weight" in frozen and is_batchnorm(module):
            keep_statistics(module)


def layer_rates(network: nn.Module, decay: float) -> dict[str, float]:
    """Return the learning rate of each trainable parameter, in multiples of a head's.

    The last layer has ``decay``, each one before it ``decay`` of the next (Bao et al., "BEiT: BERT
    Pre-Training of Image Transformers", ICLR 2022, arXiv 2106.08254).
    """
    layers = parameter_layers(network)
    total = max(layers.values()) + 1
    return {
        name: decay ** (total - layers[name])
        for name, weight in network.named_parameters()
        if weight.requires_grad
    }
