"""What is exported, and what a format has to do with it."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from swav.data.eval_transform import EvalTransform
from swav.exchange.clusterer import Clusterer, Clustering, clusterer_of
from swav.nn.backbones import BackboneConfig, is_own
from swav.nn.prototypes import ClusterHead

DESCRIPTION = "export.json"
"""In every folder that was exported: what it holds and what the network is shown."""
Picture = UInt8[Tensor, "channels _ _"]
Features = Float[Tensor, "batch features"]


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained network as plain values."""

    backbone: nn.Module
    """On the CPU, in evaluation mode and plain memory order."""
    config: BackboneConfig
    transform: EvalTransform
    cluster_head: ClusterHead | None = None
    """In evaluation mode too; None if the method has no clusters."""
    clusterings: Mapping[str, Clustering] = field(default_factory=dict)
    """See ``write_clusterer``."""

    @cached_property
    def clusterer(self) -> Clusterer | None:
        """The clusters as plain layers."""
        return None if self.cluster_head is None else clusterer_of(self.cluster_head)

    @property
    def example(self) -> Float[Tensor, "batch channels height width"]:
        """Two pictures as the network sees them: a batch of one would be taken for a constant."""
        return torch.zeros(2, *self.transform.input_size)

    @property
    def features(self) -> int:
        """How many numbers come out."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]

    @property
    def first_line(self) -> str:
        """What code that opens the network with timm begins with."""
        own = is_own(self.config.name)
        return "import swav.nn  # first: it registers the network with timm\n" if own else ""


class OpenedModel(NamedTuple):
    """An exported network as its own library opened it."""

    encode: Callable[[Sequence[Picture]], Features]
    """Features of decoded pictures."""
    cluster: Callable[[Features], Float[Tensor, "batch prototypes"]] | None
    """Probabilities from features."""


class Format(ABC):
    """A format: one file of this room."""

    @abstractmethod
    def check(self, model: TrainedModel, /) -> None:
        """Raise a ValueError, before anything is written, if the model cannot be in this format."""

    @abstractmethod
    def write(self, model: TrainedModel, folder: Path) -> None:
        """Write the network, and clusters where the format has its own form of them."""

    @abstractmethod
    def open(self, folder: Path) -> OpenedModel:
        """Return what was written, opened by the library that it is for."""

    @abstractmethod
    def usage(self, model: TrainedModel) -> str:
        """Return Python code that opens it in its folder and reads ``picture.jpg``."""


def require(extra: str, *packages: str) -> None:
    """Raise a ValueError unless the packages of an extra are installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ValueError(f"exporting needs {', '.join(missing)}: pip install 'swav[{extra}]'")


def write_description(model: TrainedModel, name: str, folder: Path) -> None:
    """Write what the folder holds."""
    description = {
        "format": name,
        "architecture": model.config.name,
        "features": model.features,
        "input": asdict(model.transform),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """Return what the folder holds."""
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    return description


def read_transform(folder: Path) -> EvalTransform:
    """Return what turns pictures into the input of the network in a folder."""
    return EvalTransform.from_timm(read_description(folder)["input"])


def as_images(pictures: Sequence[Picture]) -> list[Image.Image]:
    """Return decoded pictures of one or three channels as images of Pillow."""
    return [to_pil_image(picture) for picture in pictures]


def reading_code(transform: EvalTransform) -> str:
    """Return Python code that makes ``pictures``, an array of NumPy, of ``picture.jpg``."""
    channels, height, width = transform.input_size
    mean, std = list(transform.mean), list(transform.std)
    resampling = f"Image.Resampling.{transform.interpolation.upper()}"
    if channels in (1, 3):
        image = f"""{opening_code(channels)}
image = ImageOps.fit(image, ({width}, {height}), {resampling})
pixels = np.asarray(image, dtype=np.float32).reshape({height}, {width}, {channels}) / 255"""
    else:
        image = f"""\
pixels = np.load("picture.npy") / np.float32(255)  # ({height}, {width}, {channels})"""
    return f"""\
import numpy as np
from PIL import Image, ImageOps

{image}
pixels = (pixels - np.float32({mean})) / np.float32({std})
pictures = pixels.transpose(2, 0, 1)[None]  # (1, {channels}, {height}, {width})
"""


def opening_code(channels: int) -> str:
    """Return Python code that opens ``picture.jpg`` with Pillow."""
    return f'image = Image.open("picture.jpg").convert("{"L" if channels == 1 else "RGB"}")'
