"""A trained network as a state dict of torchvision, where it is one of torchvision's."""

from pathlib import Path

import torch

from swav.exchange.clusterer import USAGE, read_clusterer
from swav.exchange.exported import (
    Format,
    OpenedModel,
    TrainedModel,
    read_description,
    read_transform,
    reading_code,
)
from swav.exchange.from_state_dict import RESNETS, torchvision_network

STATE_DICT = "model.pth"


class Torchvision(Format):
    """The state dict of a ResNet without its last layer, ``fc``."""

    def check(self, model: TrainedModel) -> None:
        """Accept networks that torchvision has with the same layers, for three channels."""
        problem = _difference(model)
        if problem:
            raise ValueError(
                f"{model.config.title} is no network of torchvision ({problem}): those are "
                f"{', '.join(RESNETS.values())}, without arguments and for three channels. Export "
                "to another format, such as torch-export"
            )

    def write(self, model: TrainedModel, folder: Path) -> None:
        """Write the state dict."""
        torch.save(model.backbone.state_dict(), folder / STATE_DICT)

    def open(self, folder: Path) -> OpenedModel:
        """Return the network of torchvision with these weights."""
        transform = read_transform(folder)
        network = torchvision_network(read_description(folder)["architecture"])
        network.load_state_dict(torch.load(folder / STATE_DICT, weights_only=True))
        encode = torch.no_grad()(network.eval().forward)
        return OpenedModel(lambda pictures: encode(transform(pictures)), read_clusterer(folder))

    def usage(self, model: TrainedModel) -> str:
        """Return code for torchvision."""
        return f"""\
{reading_code(model.transform)}
import torch
import torchvision

model = torchvision.models.{model.config.name}()
model.fc = torch.nn.Identity()
model.load_state_dict(torch.load("{STATE_DICT}", weights_only=True))
with torch.no_grad():
    features = model.eval()(torch.from_numpy(pictures))  # (1, {model.features})
{"" if model.clusterer is None else USAGE}"""


def _difference(model: TrainedModel) -> str:
    """Return why torchvision does not have this network, nothing if it has."""
    if model.config.name not in RESNETS.values():
        return "not of this name"
    theirs = torchvision_network(model.config.name).state_dict()
    ours = model.backbone.state_dict()
    if theirs.keys() != ours.keys():
        return "other layers"
    different = [name for name in ours if ours[name].shape != theirs[name].shape]
    return f"another shape of {different[0]}" if different else ""
