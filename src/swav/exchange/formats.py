"""The formats that a trained network can be exported to, and the one way to do it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from swav.exchange.clusterer import write_clusterer
from swav.exchange.exported import (
    DESCRIPTION,
    Format,
    Picture,
    TrainedModel,
    write_description,
)
from swav.exchange.to_hf import HuggingFace
from swav.exchange.to_onnx import Onnx
from swav.exchange.to_timm import Timm
from swav.exchange.to_torch_export import TorchExport
from swav.exchange.to_torchvision import Torchvision
from swav.run_folder.atomic import replacing_folder

FORMATS: Mapping[str, Format] = {
    "timm": Timm(),
    "torchvision": Torchvision(),
    "hf": HuggingFace(),
    "onnx": Onnx(),
    "torch-export": TorchExport(),
}
TOLERANCE = 1e-5
"""Largest difference that is accepted, in units of the largest number of the trained network."""


class Difference(NamedTuple):
    """Between the trained network and the exported one."""

    absolute: float
    relative: float
    """In units of the largest number of the trained network."""

    def check(self, name: str, what: str) -> None:
        """Raise a ValueError if it is too large, or no number."""
        if not self.relative <= TOLERANCE:
            raise ValueError(
                f"{name} does not give the {what} of the trained network: they differ by up to "
                f"{self.absolute:.1e}, {self.relative:.1e} of the largest (accepted: "
                f"{TOLERANCE:.0e}). Nothing was written"
            )


def check_target(folder: Path) -> None:
    """Raise a ValueError unless a folder is new, empty, or was exported before."""
    if folder.exists() and not (folder / DESCRIPTION).exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} holds other things, and an export would replace it: name another"
        )


def export_to(
    name: str, model: TrainedModel, folder: Path, *, readme: str, pictures: Sequence[Picture]
) -> Difference:
    """Write a network in a format, open it again, and return how far its features are off.

    Args:
        name: of ``FORMATS``.
        model: that was trained.
        folder: is replaced.
        readme: text of its README.md.
        pictures: to compare on: all of them together, and the first alone.

    Raises:
        ValueError: if features or probabilities of clusters differ by more than rounding; then
            nothing is left behind.
    """
    with replacing_folder(folder) as unfinished:
        FORMATS[name].write(model, unfinished)
        if model.clusterer is not None:
            write_clusterer(model.clusterer, model.clusterings, unfinished)
        write_description(model, name, unfinished)
        (unfinished / "README.md").write_text(readme, encoding="utf-8")
        return _compared(name, model, unfinished, pictures)


@torch.no_grad()
def _compared(
    name: str, model: TrainedModel, folder: Path, pictures: Sequence[Picture]
) -> Difference:
    opened = FORMATS[name].open(folder)
    features = model.backbone(model.transform(pictures))
    alone = model.backbone(model.transform(pictures[:1]))
    difference = max(
        _difference(opened.encode(pictures), features),
        _difference(opened.encode(pictures[:1]), alone),
    )
    difference.check(name, "features")
    if model.cluster_head is not None:
        assert opened.cluster is not None
        # from the same features: a softmax over cosines would show the difference of those again
        probabilities = model.cluster_head.probabilities(features)
        _difference(opened.cluster(features), probabilities).check(name, "clusters")
    return difference


def _difference(theirs: Float[Tensor, "batch _"], ours: Float[Tensor, "batch _"]) -> Difference:
    absolute = float((theirs - ours).abs().max())
    return Difference(absolute, absolute / max(float(ours.abs().max()), 1e-30))
