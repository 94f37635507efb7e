"""A trained backbone as a folder that plain timm opens, without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import timm
import torch
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models import save_for_hf
from torch import nn

from swav.exchange.clusterer import USAGE, read_clusterer
from swav.exchange.exported import (
    Features,
    Format,
    OpenedModel,
    Picture,
    TrainedModel,
    as_images,
    opening_code,
    read_transform,
)
from swav.nn.backbones import BackboneConfig
from swav.run_folder.atomic import replacing_folder


@runtime_checkable
class InputSettings(Protocol):
    """What a network was evaluated on: ``data.transform.EvalTransform`` has it."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel."""

    @property
    def std(self) -> tuple[float, ...]:
        """Of each channel."""

    @property
    def interpolation(self) -> str:
        """Of the resize to the input size."""

    @property
    def crop_pct(self) -> float:
        """Share of the resized shorter side that the centre crop keeps."""


def save_timm(
    backbone: nn.Module,
    folder: Path,
    *,
    config: BackboneConfig,
    transform: InputSettings,
    readme: str,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``, replacing the folder.

    ``timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)`` then gives the same
    features, and the transform timm makes from ``config.json`` is ``transform``. The files
    appear together: an interrupted call leaves no half-written folder of that name.

    Raises:
        ValueError: if ``config`` is no timm name or does not describe ``backbone``.
    """
    fresh = rebuilt(backbone, config, channels=transform.input_size[0])
    with replacing_folder(folder) as unfinished:
        write_timm(fresh, unfinished, transform)
        (unfinished / "README.md").write_text(readme, encoding="utf-8")


class Timm(Format):
    """The folder that ``timm.create_model("local-dir:FOLDER")`` opens."""

    def check(self, model: TrainedModel) -> None:
        """Accept networks of timm."""
        rebuilt(model.backbone, model.config, channels=model.transform.input_size[0])

    def write(self, model: TrainedModel, folder: Path) -> None:
        """Write config and weights."""
        channels = model.transform.input_size[0]
        fresh = rebuilt(model.backbone, model.config, channels=channels)
        write_timm(fresh, folder, model.transform)

    def open(self, folder: Path) -> OpenedModel:
        """Return timm's network behind timm's transform, which knows 1 and 3 channels."""
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        settings = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
        transform = create_transform(**settings, is_training=False)
        ours = read_transform(folder)

        @torch.no_grad()
        def encode(pictures: Sequence[Picture]) -> Features:
            shown = ours(pictures)
            if ours.input_size[0] in (1, 3):
                shown = torch.stack([transform(image) for image in as_images(pictures)])
            features: Features = network(shown)
            return features

        return OpenedModel(encode, read_clusterer(folder))

    def usage(self, model: TrainedModel) -> str:
        """Return code for timm."""
        clusters = "" if model.clusterer is None else USAGE
        return f"{timm_usage(model)}{clusters}"


def timm_usage(model: TrainedModel) -> str:
    """Return code that opens the network and gives the features of a picture."""
    channels = model.transform.input_size[0]
    shape = (1, *model.transform.input_size)
    opened = f"{opening_code(channels)}\npictures = transform(image)[None]"
    array = f"pictures = torch.zeros{shape}  # yours, less the mean, over the deviation"
    return f"""\
{model.first_line}import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True, num_classes=0).eval()
settings = timm.data.resolve_data_config({{}}, model=model)
transform = timm.data.create_transform(**settings, is_training=False)
{opened if channels in (1, 3) else array}
with torch.no_grad():
    features = model(pictures)  # (1, {model.features})
"""


def rebuilt(backbone: nn.Module, config: BackboneConfig, *, channels: int) -> nn.Module:
    """Return the network that ``config`` describes, with the weights of ``backbone``.

    It is what timm will build, so that what cannot be opened is found before it is written; on
    the CPU and in plain memory order whatever ``backbone`` was trained in.
    """
    if ":" in config.name:
        raise ValueError(
            f"backbone {config.name!r} is not a timm name: register its factory with "
            "timm.models.register_model and use that name, then timm can open the model"
        )
    fresh = config.build(channels)
    try:
        fresh.load_state_dict(backbone.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"the network is not {config.name} with {config.args} and {channels} channels: {error}"
        ) from error
    return fresh


def write_timm(model: nn.Module, folder: Path, transform: InputSettings) -> None:
    """Write weights and config; the settings replace those of timm's weights of this name."""
    settings = {
        "input_size": transform.input_size,
        "mean": transform.mean,
        "std": transform.std,
        "interpolation": transform.interpolation,
        "crop_pct": transform.crop_pct,
        "crop_mode": "center",
    }
    not_ours = dict.fromkeys(("tag", "license", "origin_url", "paper_ids"))  # of timm's weights
    save_for_hf(
        model,
        str(folder),
        model_config={"pretrained_cfg": settings | not_ours},
        safe_serialization=True,
        data_config=settings,
    )
