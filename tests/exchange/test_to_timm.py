"""The exported folder, opened by timm alone."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config

from swav.data.eval_transform import EvalTransform
from swav.exchange import to_timm
from swav.exchange.to_timm import save_timm
from swav.nn.backbones import BackboneConfig

RESNET = BackboneConfig(
    name="resnet18",
    args={"channels": [32, 64, 128, 256], "stem_type": "deep", "stem_width": 16},
)
CONVNEXT = BackboneConfig(
    name="convnext_atto", args={"patch_size": 2, "depths": [1, 1, 2, 1], "dims": [16, 32, 64, 128]}
)
TRANSFORMER = BackboneConfig(
    name="vit_tiny_patch16_224", args={"patch_size": 8, "embed_dim": 48, "depth": 2}
)


def trained(config: BackboneConfig, channels: int, size: tuple[int, int]) -> torch.nn.Module:
    """Return a network with BatchNorm statistics and an unusual memory order."""
    torch.manual_seed(0)
    backbone = config.build(channels).to(memory_format=torch.channels_last)
    backbone(torch.randn(8, channels, *size))
    return backbone


def settings(channels: int, size: tuple[int, int]) -> EvalTransform:
    return EvalTransform(
        input_size=(channels, *size), mean=(0.4,) * channels, std=(0.3,) * channels
    )


@pytest.mark.parametrize(
    ("config", "channels", "size"),
    [
        (RESNET, 1, (32, 32)),
        (RESNET, 3, (40, 32)),
        (CONVNEXT, 3, (32, 32)),
        (TRANSFORMER, 3, (48, 48)),
        (BackboneConfig(name="cifar_resnet18"), 3, (16, 16)),
    ],
)
def test_timm_alone_sees_the_same_pictures_and_gives_the_same_features(
    tmp_path, config, channels, size
):
    backbone, transform = trained(config, channels, size), settings(channels, size)
    save_timm(backbone, tmp_path / "model", config=config, transform=transform, readme="# Mine\n")
    opened = timm.create_model(f"local-dir:{tmp_path}/model", pretrained=True, num_classes=0)
    their_transform = create_transform(**resolve_data_config({}, model=opened), is_training=False)
    array = np.random.default_rng(0).integers(0, 256, (50, 70, channels), dtype=np.uint8)
    image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    theirs = their_transform(image)[None]
    ours = transform([torch.from_numpy(array).permute(2, 0, 1)])
    assert torch.equal(theirs, ours)
    with torch.no_grad():
        torch.testing.assert_close(
            opened.eval()(theirs), backbone.eval()(ours), rtol=1e-4, atol=1e-5
        )


def test_more_channels_than_a_picture_file_holds(tmp_path):
    backbone = trained(RESNET, 5, (32, 32))
    folder = tmp_path / "model"
    save_timm(backbone, folder, config=RESNET, transform=settings(5, (32, 32)), readme="")
    opened = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    for name, value in backbone.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name


def test_the_settings_are_ours_and_not_those_of_timms_weights(tmp_path):
    backbone, transform = trained(RESNET, 1, (32, 32)), settings(1, (32, 32))
    save_timm(backbone, tmp_path / "m", config=RESNET, transform=transform, readme="# Mine\n")
    written = json.loads((tmp_path / "m/config.json").read_text())
    assert written["architecture"] == "resnet18"
    assert written["num_features"] == 256
    assert written["num_classes"] == 0
    assert written["model_args"].items() >= {"in_chans": 1, **RESNET.args}.items()
    assert EvalTransform.from_timm(written["pretrained_cfg"]) == transform
    assert written["pretrained_cfg"]["num_classes"] == 0
    assert not written["pretrained_cfg"].get("license")
    assert (tmp_path / "m/README.md").read_text() == "# Mine\n"
    assert load_file(tmp_path / "m/model.safetensors").keys() == backbone.state_dict().keys()


def test_an_interrupted_export_leaves_the_old_one(tmp_path, monkeypatch):
    backbone, transform = trained(RESNET, 1, (32, 32)), settings(1, (32, 32))
    save_timm(backbone, tmp_path / "model", config=RESNET, transform=transform, readme="old")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(to_timm, "save_for_hf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_timm(backbone, tmp_path / "model", config=RESNET, transform=transform, readme="new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/README.md").read_text() == "old"


def test_a_second_export_replaces_the_first(tmp_path):
    backbone, transform = trained(RESNET, 1, (32, 32)), settings(1, (32, 32))
    for readme in ("old", "new"):
        save_timm(backbone, tmp_path / "model", config=RESNET, transform=transform, readme=readme)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/README.md").read_text() == "new"


def test_a_config_of_another_network_is_refused_before_anything_is_written(tmp_path):
    backbone, transform = trained(RESNET, 1, (32, 32)), settings(1, (32, 32))
    wider = BackboneConfig(name="resnet18", args={"channels": [64, 64, 128, 256]})
    for wrong, named in ((wider, "not resnet18 with"), (BackboneConfig(name="a:b"), "timm name")):
        with pytest.raises(ValueError, match=named):
            save_timm(backbone, tmp_path / "m", config=wrong, transform=transform, readme="")
    assert not list(tmp_path.iterdir())
