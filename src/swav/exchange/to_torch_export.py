"""A trained network as a program of torch.export, which needs none of our code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swav.exchange.exported import (
    Format,
    OpenedModel,
    TrainedModel,
    read_transform,
    reading_code,
)

NETWORK, CLUSTERS = "model.pt2", "clusters.pt2"


class TorchExport(Format):
    """``torch.export.load`` opens it; batches of any size."""

    def check(self, _model: TrainedModel, /) -> None:
        """Accept every network."""

    def write(self, model: TrainedModel, folder: Path) -> None:
        """Write a program for the features, and one for the clusters."""
        _write(model.backbone, model.example, folder / NETWORK)
        if model.clusterer is not None:
            _write(model.clusterer, torch.zeros(2, model.features), folder / CLUSTERS)

    def open(self, folder: Path) -> OpenedModel:
        """Return the programs."""
        transform, network = read_transform(folder), _opened(folder / NETWORK)
        clusters = _opened(folder / CLUSTERS) if (folder / CLUSTERS).exists() else None
        return OpenedModel(lambda pictures: network(transform(pictures)), clusters)

    def usage(self, model: TrainedModel) -> str:
        """Return code for torch."""
        clusters = f"""\
    probabilities = torch.export.load("{CLUSTERS}").module()(features)
"""
        return f"""\
{reading_code(model.transform)}
import torch

model = torch.export.load("{NETWORK}").module()
with torch.no_grad():
    features = model(torch.from_numpy(pictures))  # (1, {model.features})
{"" if model.clusterer is None else clusters}"""


def _write(module: nn.Module, example: Tensor, path: Path) -> None:
    batch: dict[int, Any] = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=(batch,)), path)


def _opened(path: Path) -> Callable[[Tensor], Tensor]:
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(values: Tensor) -> Tensor:
        answer: Tensor = module(values)
        return answer

    return run
