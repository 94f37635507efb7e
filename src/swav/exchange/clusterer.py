"""The clusters of a method as plain layers: tensors, and what they are."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from swav.nn.prototypes import ClusterHead

TENSORS, SETTINGS = "clusters.safetensors", "clusters.json"
CENTRES = "centres."
"""Before the name of a clustering: its tensor."""
USAGE = """\
import json
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file

tensors = load_file("clusters.safetensors")
settings = json.loads(Path("clusters.json").read_text())
hidden = features
for layer in range(settings["layers"]):
    hidden = hidden.relu() if layer else hidden
    hidden = F.linear(hidden, tensors[f"layers.{layer}.weight"], tensors[f"layers.{layer}.bias"])
clustering = settings["clusterings"]["prototypes"]  # or another that is there, such as k=12
scores = F.normalize(hidden) @ tensors[clustering["directions"]].T
probabilities = (scores / settings["temperature"]).softmax(dim=1)
"""
"""The probability of each prototype from ``features`` of torch, in the folder of both files.

Column n is of cluster ``clustering["clusters"][n]``; columns of one cluster are added up.
"""


class Clustering(NamedTuple):
    """Which cluster each direction stands for, and what people call the clusters."""

    clusters: list[int]
    names: Mapping[int, str]
    centres: Float[Tensor, "_ embed"] | None = None
    """The directions, of unit length; None for the prototypes."""


class Clusterer(nn.Module):
    """The probability of each prototype: linear layers, ReLU between them, cosines, softmax."""

    prototypes: Tensor

    def __init__(
        self,
        layers: nn.ModuleList,
        prototypes: Float[Tensor, "prototypes embed"],
        temperature: float,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("prototypes", F.normalize(prototypes, dim=1))
        self.temperature = temperature

    def forward(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch prototypes"]:
        """Return the probabilities, of each picture alone."""
        hidden = features
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden.relu() if number else hidden)
        return (F.normalize(hidden, dim=1) @ self.prototypes.T / self.temperature).softmax(dim=1)


def clusterer_of(head: ClusterHead) -> Clusterer:
    """Return a copy on the CPU, the statistics of BatchNorm folded into the layers before it."""
    projector = copy.deepcopy(head.projector).cpu().double().eval()
    layers: list[nn.Linear] = []
    for module in [projector] if isinstance(projector, nn.Linear) else projector.children():
        if isinstance(module, nn.BatchNorm1d):
            layers[-1] = fuse_linear_bn_eval(layers[-1], module)
        elif isinstance(module, nn.Linear):
            layers.append(module)
        else:
            assert isinstance(module, nn.ReLU), "heads have no other layers"
    for layer in layers:
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(layer.out_features))
    prototypes = next(head.prototypes.parameters()).detach().cpu()
    return Clusterer(nn.ModuleList(layers), prototypes, head.temperature).float().eval()


def write_clusterer(
    clusterer: Clusterer, clusterings: Mapping[str, Clustering], folder: Path
) -> None:
    """Write its tensors, and a JSON file with the rest.

    Args:
        clusterer: of a method.
        clusterings: by name.
        folder: where to.
    """
    centres = {
        f"{CENTRES}{name}": clustering.centres.contiguous()
        for name, clustering in clusterings.items()
        if clustering.centres is not None
    }
    save_file(clusterer.state_dict() | centres, folder / TENSORS)
    settings = {
        "layers": len(clusterer.layers),
        "prototypes": len(clusterer.prototypes),
        "temperature": clusterer.temperature,
        "clusterings": {
            name: {
                "clusters": clustering.clusters,
                "names": clustering.names,
                "directions": "prototypes" if clustering.centres is None else f"{CENTRES}{name}",
            }
            for name, clustering in clusterings.items()
        },
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def read_clusterer(folder: Path) -> Clusterer | None:
    """Return what ``write_clusterer`` wrote, None if there is nothing."""
    if not (folder / SETTINGS).exists():
        return None
    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    tensors = load_file(folder / TENSORS)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(CENTRES)}
    layers = nn.ModuleList()
    for number in range(settings["layers"]):
        embed_dim, input_dim = tensors[f"layers.{number}.weight"].shape
        layers.append(nn.Linear(input_dim, embed_dim))
    clusterer = Clusterer(layers, tensors["prototypes"], settings["temperature"])
    clusterer.load_state_dict(tensors)
    return clusterer.eval()
