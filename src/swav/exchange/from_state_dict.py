"""Networks from the weights of others: naming the network of a file, and building it.

A network is timm's where timm has it under the same names of tensors, which all ResNets are; else
torchvision's. Every tensor must find its place: a network that is half untrained gives features
too, and wrong ones.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision.models
from torch import Tensor, nn

from swav.exchange.weights import ForeignWeights, match, read_weights
from swav.nn.backbones import BackboneConfig

ENDINGS = (".pth", ".pt", ".pth.tar", ".bin", ".safetensors", ".torch", ".ckpt")
RESNETS: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {
    ((2, 2, 2, 2), ()): "resnet18",
    ((3, 4, 6, 3), ()): "resnet34",
    ((3, 4, 6, 3), (64, 64)): "resnet50",
    ((3, 4, 6, 3), (128, 128)): "wide_resnet50_2",
    ((3, 4, 6, 3), (128, 4)): "resnext50_32x4d",
    ((3, 4, 23, 3), (64, 64)): "resnet101",
    ((3, 4, 23, 3), (128, 128)): "wide_resnet101_2",
    ((3, 4, 23, 3), (256, 8)): "resnext101_32x8d",
    ((3, 4, 23, 3), (256, 4)): "resnext101_64x4d",
    ((3, 8, 36, 3), (64, 64)): "resnet152",
}
"""By blocks of each stage, and outputs and inputs a group of a bottleneck's middle layer."""
WIDER_RESNET50 = {
    (128, 128): "resnet50w2",
    (256, 256): "resnet50w4",
    (320, 320): "resnet50w5",
}
"""By the same two numbers: wide from the stem on."""
AUXILIARY = ("googlenet", "inception_v3")
"""Networks of torchvision with further outputs while they train, which nothing here expects."""
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""How torchvision's own files name what its DenseNets call norm1 and conv2."""
Candidate = tuple[Callable[[], nn.Module], Callable[[nn.Module], dict[str, Tensor]]]


def load_networks(path: Path, name: str | None, channels: int) -> tuple[nn.Module, nn.Module]:
    """Return the network with the weights of a file, and the same untrained (of a fixed seed).

    The ``pretrained_cfg`` of both says what the network is shown: as timm's weights where a network
    of timm was named, as torchvision's where the file itself told which network it is of.

    Args:
        path: in any layout that ``read_weights`` knows.
        name: of timm or torchvision; None: what the tensors or the name of the file say.
        channels: of a network whose file does not say it.

    Raises:
        ValueError: if the file cannot be read, its network is not known, or a tensor of the
            network is missing or has another shape.
    """
    foreign = read_weights(path)
    is_named = name is not None
    name = name or guess_network(foreign.backbone, path)
    problems = []
    for build, fitting in _candidates(name, foreign.backbone, channels):
        torch.manual_seed(0)
        network = build()
        torch.manual_seed(0)
        untrained = build()
        problem = _fill(network, replace(foreign, backbone=fitting(network)))
        if not problem:
            if is_torchvision(name) and not (is_named and hasattr(network, "pretrained_cfg")):
                settings: Any = published_input(name, path.name)
                network.pretrained_cfg = untrained.pretrained_cfg = settings
            return network, untrained
        problems.append(problem)
    if problems:
        raise ValueError(f"{path} does not hold the weights of {name}: {problems[0]}")
    raise ValueError(
        f"{name} is no network of timm or torchvision that can be read here: "
        "`swav list backbones` names those of timm"
    )


def _candidates(name: str, tensors: Mapping[str, Tensor], channels: int) -> Iterator[Candidate]:
    """Yield how to build each network of that name, and which of the tensors are for it."""
    if timm.is_model(name):
        config = BackboneConfig(name=name)
        if "conv1.weight" in tensors:
            channels = tensors["conv1.weight"].shape[1]
        yield lambda: config.build(channels), lambda _: dict(tensors)
    if is_torchvision(name):
        yield (
            lambda: torchvision_network(name),
            lambda network: _without_last_layer(network, tensors),
        )


def guess_network(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Return the name of a ResNet by its tensors, of another network by the name of its file.

    torchvision's files are called after the network and their hash, as vit_b_16-c867db91.pth.

    Raises:
        ValueError: if neither tells.
    """
    blocks = tuple(
        len({key.split(".")[1] for key in tensors if key.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    is_bottleneck = "layer1.0.conv3.weight" in tensors
    middle = tuple(tensors["layer1.0.conv2.weight"].shape[:2]) if is_bottleneck else ()
    stem = tensors["conv1.weight"].shape[0] if "conv1.weight" in tensors else 0
    if (blocks, middle) in RESNETS and stem == 64:
        return RESNETS[blocks, middle]
    if blocks == (3, 4, 6, 3) and middle == (stem, stem) and middle in WIDER_RESNET50:
        return WIDER_RESNET50[middle]
    named, _, _ = path.name.partition("-")
    if is_torchvision(named.partition(".")[0]):
        return named.partition(".")[0]
    raise ValueError(
        f"{path} is no ResNet and not called after a network of torchvision (as in "
        f"vit_b_16-c867db91.pth): say which network of timm or torchvision it is, with NAME={path}"
    )


def torchvision_network(name: str) -> nn.Module:
    """Return an untrained network without its last layer: (batch, 3, h, w) to (batch, features).

    As of timm's networks, ``num_features`` is the size of what comes out; ``last_layer`` is the
    name of the one that is gone. The stages of the network are not shown.
    """
    model: Any = torchvision.models.get_model(name, weights=None)
    model.last_layer, last = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ][-1]
    model.set_submodule(model.last_layer, nn.Identity())
    model.num_features = last.weight.shape[1]
    network: nn.Module = model
    return network


def is_torchvision(name: str) -> bool:
    """Return whether torchvision has a network of this name that can be built here."""
    return name not in AUXILIARY and name in torchvision.models.list_models(torchvision.models)


def published_input(name: str, file: str) -> dict[str, Any]:
    """Return what torchvision's weights in this file are evaluated on, or its first of that name.

    The first of a ResNet are shown 224 of 256 pixels, as those of most papers are.
    """
    published = list(torchvision.models.get_model_weights(name))
    weights = next((entry for entry in published if entry.url.endswith(f"/{file}")), published[0])
    transform = weights.transforms()
    (side,), (resized,) = transform.crop_size, transform.resize_size
    return {
        "input_size": (3, side, side),
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
        "interpolation": transform.interpolation.value,
        "crop_pct": side / resized,
    }


def _without_last_layer(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {OLD_DENSENET.sub(r"\1\2.", key): value for key, value in tensors.items()}
    return {key: tensor for key, tensor in named.items() if not key.startswith(network.last_layer)}


def _fill(network: nn.Module, foreign: ForeignWeights) -> str:
    """Load the tensors; return what does not fit, or nothing."""
    try:
        found = match(network.state_dict(), foreign)
    except ValueError as error:
        return str(error)
    if found.unexpected:  # of a deeper network, of which this would be the first half
        return found.summary()
    network.load_state_dict(found.state)
    return ""
