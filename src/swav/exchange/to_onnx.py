"""A trained network as ONNX."""

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
    require,
)

NETWORK, CLUSTERS = "model.onnx", "clusters.onnx"
ONE_FILE = 1_800_000_000
"""Bytes of weights up to which they are inside the file: ONNX cannot hold more than 2 GiB."""


class Onnx(Format):
    """onnxruntime and others open it; batches of any size."""

    def check(self, _model: TrainedModel, /) -> None:
        """Accept every network."""
        require("onnx", "onnx", "onnxscript", "onnxruntime")

    def write(self, model: TrainedModel, folder: Path) -> None:
        """Write a file for the features, and one for the clusters."""
        _write(model.backbone, model.example, folder / NETWORK, ("pictures", "features"))
        if model.clusterer is not None:
            features = torch.zeros(2, model.features)
            _write(model.clusterer, features, folder / CLUSTERS, ("features", "probabilities"))

    def open(self, folder: Path) -> OpenedModel:
        """Return sessions of onnxruntime on the CPU."""
        transform, network = read_transform(folder), _opened(folder / NETWORK)
        clusters = _opened(folder / CLUSTERS) if (folder / CLUSTERS).exists() else None
        return OpenedModel(lambda pictures: network(transform(pictures)), clusters)

    def usage(self, model: TrainedModel) -> str:
        """Return code for onnxruntime, without torch."""
        clusters = f"""\
clusters = onnxruntime.InferenceSession("{CLUSTERS}")
(probabilities,) = clusters.run(None, {{"features": features}})
"""
        return f"""\
{reading_code(model.transform)}
import onnxruntime

model = onnxruntime.InferenceSession("{NETWORK}")
(features,) = model.run(None, {{"pictures": pictures}})  # (1, {model.features})
{"" if model.clusterer is None else clusters}"""


def _write(module: nn.Module, example: Tensor, path: Path, names: tuple[str, str]) -> None:
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    batch: dict[int, Any] = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        module,
        (example,),
        path,
        dynamo=True,
        dynamic_shapes=(batch,),
        input_names=names[:1],
        output_names=names[1:],
        external_data=size > ONE_FILE,
        verbose=False,
    )


def _opened(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())

    def run(values: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: values.numpy()})[0])

    return run
