"""Every recipe is built, planned, and takes a step: batch of four, its own crops and precision."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from swav.data.sources.open import from_arrays
from swav.data.sources.pictures import DataFacts
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import HeadConfig
from swav.recipes import RECIPES, TrainConfig, make_config
from swav.run_folder.checkpoint import newest_checkpoint
from swav.training import checks, plan
from swav.training import run as train_module
from swav.training import session as session_module
from swav.training.run import train

NUM_PICTURES = 4
PHOTOS = DataFacts(
    num_images=50_000, height=224, width=224, channels=3, num_classes=0, in_memory=False
)
SMALLER: dict[str, Any] = {
    "hidden_dim": 32,
    "tile_dim": 8,
    "num_negatives": 8,
    "num_permutations": 6,
    "queue_length": 8,
    "batchnorm_groups": 2,
    "freeze_steps": 0,
}


def toy(name: str) -> TrainConfig:
    """Return a recipe for four pictures, with its network, crops, method and optimiser."""
    config = make_config(name, PHOTOS, device="cpu")
    names = {field.name for field in fields(config.method)}
    method = replace(
        config.method,
        **({"head": smaller(config.method.head)} if "head" in names else {}),
        **{
            key: min(vars(config.method)[key], SMALLER[key])
            for key in names & SMALLER.keys()
            if vars(config.method)[key] != "auto"
        },
        **(
            {"num_prototypes": (2,) * len(config.method.num_prototypes)}
            if "num_prototypes" in names
            else {}
        ),
    )
    return replace(
        config,
        method=method,
        optim=replace(config.optim, batch_size=NUM_PICTURES),
        epochs=1,
        # the GPU's half precision takes a minute a step on a CPU
        precision="32-true" if config.precision == "32-true" else "bf16-mixed",
        sync_batchnorm=False,
        threads=1,
        workers=0,
    )


def smaller(head: HeadConfig) -> HeadConfig:
    return replace(head, hidden_dim=min(head.hidden_dim, 32), embed_dim=16)


def narrowed(backbone: BackboneConfig) -> BackboneConfig:
    """Return a ResNet-50 of any width as one of a quarter of the usual width."""
    if not backbone.name.startswith("resnet50"):
        return backbone
    args = {"zero_init_last": False, **backbone.args, "channels": [16, 32, 64, 128]}
    return BackboneConfig(name="resnet50", args=args)


def combination(name: str) -> str:
    config = toy(name)
    parts = (
        narrowed(config.backbone),
        config.views.description,
        config.method,
        config.optim.optimizer,
    )
    return " ".join(map(repr, parts))


DISTINCT = list({combination(name): name for name in reversed(RECIPES)}.values())[::-1]
"""One recipe of each network, crops and method; the others differ in length and rates."""


@pytest.mark.parametrize("name", RECIPES)
def test_is_built_and_planned(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At full width, its weights left out."""
    build = BackboneConfig.build

    def on_meta(config: BackboneConfig, channels: int = 3, **_: Any) -> nn.Module:
        with torch.device("meta"):
            return build(config, channels)

    monkeypatch.setattr(BackboneConfig, "build", on_meta)
    monkeypatch.setattr(plan, "_probe", lambda *_: (0.01, 1e6))
    config = make_config(name, PHOTOS)
    checks.check_plan(config, PHOTOS)
    plan.print_plan(config, PHOTOS, from_arrays(np.zeros((4, 32, 32, 3), dtype=np.uint8)))
    steps = config.epochs * (PHOTOS.num_images // config.optim.batch_size)
    assert f"= {steps} steps of {config.optim.batch_size} pictures" in capsys.readouterr().out


def step(config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for one epoch, which is one step, and look at what was saved."""
    monkeypatch.setattr(train_module, "write_outputs", lambda *_, **__: None)
    monkeypatch.setattr(session_module, "draw_views", lambda *_: None)
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_PICTURES, 40, 40, 3), dtype=np.uint8)
    train(from_arrays(pixels), config=config, out=folder)
    saved = newest_checkpoint(folder)
    assert saved is not None
    assert saved.step == 1
    assert any(key.startswith("optimizer/") for key in saved.tensors)
    assert all(tensor.isfinite().all() for tensor in saved.tensors.values())


@pytest.mark.parametrize("name", DISTINCT)
def test_takes_a_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy(name)
    step(replace(config, backbone=narrowed(config.backbone)), tmp_path / "run", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_takes_a_step_at_full_width(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step(toy(name), tmp_path / "run", monkeypatch)
