"""A trained backbone as a folder that plain timm opens, without a network."""

import os
import shutil
from pathlib import Path
from typing import Protocol, runtime_checkable

from timm.models import save_for_hf
from torch import nn

from swav.nn.backbones import BackboneConfig
from swav.run_folder.atomic import flush_to_disk


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
    fresh = _rebuilt(backbone, config, channels=transform.input_size[0])
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write(fresh, unfinished, transform)
        (unfinished / "README.md").write_text(readme, encoding="utf-8")
        for path in unfinished.iterdir():
            flush_to_disk(path)
        # aside first: a folder cannot be replaced by a rename while it holds files
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
        flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _rebuilt(backbone: nn.Module, config: BackboneConfig, *, channels: int) -> nn.Module:
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


def _write(model: nn.Module, folder: Path, transform: InputSettings) -> None:
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
