"""Files of weights: what is read, which network they are of, and what is refused."""

from pathlib import Path

import pytest
import torch
import torchvision

from swav.exchange.from_state_dict import guess_network, load_networks
from swav.nn.backbones import BackboneConfig

PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet50w2",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "resnext101_32x8d",
        "resnext101_64x4d",
    ],
)
def test_a_resnet_is_known_by_its_tensors(name: str) -> None:
    with torch.device("meta"):
        tensors = BackboneConfig(name=name).build().state_dict()
    assert guess_network(tensors, Path("weights.pth")) == name


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_v3_small", "mobilenet_v3_small-047dcff4.pth"),
        ("squeezenet1_1", "squeezenet1_1.pth"),
        ("shufflenet_v2_x0_5", "shufflenet_v2_x0_5=any.pth"),
        ("regnet_x_400mf", "regnet_x_400mf-adf1edd5.pth"),
        ("efficientnet_b0", "efficientnet_b0=any.pth"),
        ("densenet121", "densenet121-a639ec97.pth"),
    ],
)
def test_features_of_other_networks_are_what_goes_into_their_last_layer(
    name: str, file: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    tensors = theirs.state_dict()
    if name == "densenet121":  # as the published file has them
        tensors = {
            key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
            for key, value in tensors.items()
        }
    torch.save(tensors, tmp_path / file)
    given = name if "=" in file else None
    network, untrained = load_networks(tmp_path / file, given, channels=3)
    seen = []
    last = [m for m in theirs.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        theirs(PICTURES)
        features = network.eval()(PICTURES)
        if name == "squeezenet1_1":  # its last layer is a convolution, pooled afterwards
            seen[0] = torch.nn.functional.relu(seen[0]).mean(dim=(2, 3))
        torch.testing.assert_close(features, seen[0], atol=0, rtol=1e-3)
        assert not torch.allclose(features, untrained.eval()(PICTURES), atol=0, rtol=1e-1)
    assert features.shape[1] == network.num_features
    assert network.pretrained_cfg["input_size"] == (3, 224, 224)


def test_weights_of_another_network_and_unknown_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    with pytest.raises(ValueError, match=r"is no ResNet and not called after.*NAME="):
        load_networks(path, None, channels=3)
    with pytest.raises(ValueError, match="does not hold the weights of resnet18"):
        load_networks(path, "resnet18", channels=3)
    with pytest.raises(ValueError, match="does not hold the weights of squeezenet1_0"):
        load_networks(path, "squeezenet1_0", channels=3)
    with pytest.raises(ValueError, match="googlenet is no network"):
        load_networks(path, "googlenet", channels=3)


def test_a_file_of_swav_is_a_network_too(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18()
    theirs.fc = torch.nn.Identity()
    heads = {"projection_head.weight": torch.ones(9, 512), "prototypes.weight": torch.ones(3, 9)}
    tensors = {f"module.{key}": value for key, value in {**theirs.state_dict(), **heads}.items()}
    torch.save({"state_dict": tensors}, tmp_path / "checkpoint.pth.tar")
    network, _ = load_networks(tmp_path / "checkpoint.pth.tar", None, channels=3)
    with torch.no_grad():
        features = network.eval()(PICTURES)
        torch.testing.assert_close(features, theirs.eval()(PICTURES), atol=1e-6, rtol=0)


def test_the_first_part_of_a_deeper_network_is_refused(tmp_path: Path) -> None:
    tensors = torchvision.models.resnet18().state_dict()
    deeper = {key.replace("layer1.1.", "layer1.2."): tensors[key] for key in tensors}
    torch.save({**tensors, **deeper}, tmp_path / "weights.pth")
    with pytest.raises(
        ValueError, match=r"does not hold the weights of resnet18: .* 12 unexpected"
    ):
        load_networks(tmp_path / "weights.pth", "resnet18", channels=3)


def test_a_norm_that_timm_calls_head_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = BackboneConfig(name="convnext_atto").build().eval()
    assert "head.norm.weight" in theirs.state_dict()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    network, _ = load_networks(tmp_path / "weights.pth", "convnext_atto", channels=3)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(PICTURES), theirs(PICTURES))


@pytest.mark.parametrize(
    ("file", "name", "interpolation", "crop_pct"),
    [
        ("swav.pth", None, "bilinear", 224 / 256),  # a ResNet as papers publish them
        ("resnet18-f37072fd.pth", None, "bilinear", 224 / 256),
        ("weights.pth", "resnet18", "bicubic", 0.95),  # timm's own of that name
    ],
)
def test_a_resnet_is_shown_what_its_weights_were_evaluated_on(
    file: str, name: str | None, interpolation: str, crop_pct: float, tmp_path: Path
) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / file)
    for network in load_networks(tmp_path / file, name, channels=3):
        shown = network.pretrained_cfg
        assert (shown["interpolation"], shown["crop_pct"]) == (interpolation, crop_pct)
