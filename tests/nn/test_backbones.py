"""Backbones: which networks come out, and how views pass through them."""

import subprocess
import sys
from types import ModuleType

import pytest
import timm
import torch
from torch import Tensor, nn

from swav.nn.backbones import BackboneConfig, encode_views, is_own


class Recorder(nn.Module):
    """Mean colour as features; keeps the shapes of what came in."""

    def __init__(self, in_chans: int = 3, num_features: int = 3) -> None:
        super().__init__()
        self.channels = in_chans
        self.num_features = num_features
        self.passes: list[tuple[int, ...]] = []

    def forward(self, pictures: Tensor) -> Tensor:
        self.passes.append(tuple(pictures.shape))
        return pictures.mean(dim=(2, 3))


def test_own_networks_are_those_that_timm_alone_does_not_have():
    listed = "import timm; print(*timm.list_models())"
    of_timm = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = set(timm.list_models()) - set(of_timm)
    assert ours == {name for name in timm.list_models() if is_own(name)}
    assert "cifar_resnet18" in ours
    assert not is_own("nobodys_network")


@pytest.mark.parametrize(
    ("sizes", "passes"),
    [
        ([(8, 8)], [(2, 8, 8)]),
        ([(8, 8), (8, 8), (4, 4), (4, 4), (4, 4)], [(4, 8, 8), (6, 4, 4)]),
        ([(8, 8), (4, 8), (4, 8)], [(2, 8, 8), (4, 4, 8)]),
        ([(8, 8), (4, 4), (8, 8)], [(2, 8, 8), (2, 4, 4), (2, 8, 8)]),
    ],
)
def test_one_pass_for_each_run_of_equal_shapes(sizes, passes):
    backbone = Recorder()
    views = [torch.randn(2, 3, *size) for size in sizes]
    features = encode_views(backbone, views)
    assert backbone.passes == [(rows, 3, *size) for rows, *size in passes]
    for view, feature in zip(views, features, strict=True):
        torch.testing.assert_close(feature, view.mean(dim=(2, 3)))


def test_batchnorm_sees_the_views_of_one_shape_together():
    norm = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    first, second, small = (
        torch.randn(4, 3, 8, 8),
        torch.randn(4, 3, 8, 8) + 5,
        torch.ones(4, 3, 4, 4),
    )
    features = encode_views(norm, [first, second, small])
    both = torch.cat([first, second])
    mean, std = both.mean(dim=(0, 2, 3)), both.var(dim=(0, 2, 3), unbiased=False).add(1e-5).sqrt()
    torch.testing.assert_close(features[1], (second.mean(dim=(2, 3)) - mean) / std)
    torch.testing.assert_close(features[2], torch.zeros(4, 3))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_small_resnet_keeps_the_resolution_of_small_pictures(channels):
    network = BackboneConfig(name="cifar_resnet18").build(channels)
    assert network.num_features == 512
    assert network(torch.randn(2, channels, 32, 32)).shape == (2, 512)
    stem = network.conv1
    assert (stem.in_channels, stem.kernel_size, stem.stride) == (channels, (3, 3), (1, 1))
    assert isinstance(network.maxpool, nn.Identity)
    assert all(
        norm.weight.min() == 1 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)
    )


@pytest.mark.parametrize(
    ("name", "width", "millions"),
    [("resnet50", 1, 24), ("resnet50w2", 2, 94), ("resnet50w4", 4, 375), ("resnet50w5", 5, 586)],
)
def test_wide_networks_have_the_published_numbers_of_parameters(name, width, millions):
    """The paper counts the backbone with its 2048 x width features, no classifier."""
    with torch.device("meta"):
        network = BackboneConfig(name=name).build()
    assert network.num_features == 2048 * width
    assert network.conv1.weight.shape == (64 * width, 3, 7, 7)
    total = sum(weight.numel() for weight in network.parameters())
    assert round(total / 1e6) == pytest.approx(millions, abs=1)
    block = network.layer2[0]  # stride on the 3x3 convolution
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_a_transformer_takes_views_of_any_size():
    tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    network = BackboneConfig(name="vit_tiny_patch16_224", args=tiny).build()
    features = encode_views(network, [torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16, 24)])
    assert [tuple(feature.shape) for feature in features] == [(2, 24), (2, 24)]


def test_lists_from_yaml_become_tuples():
    network = BackboneConfig(name="cifar_resnet18", args={"drop_rate": 0.25}).build()
    assert network.drop_rate == 0.25
    layers = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
    assert BackboneConfig(name="convnext_atto", args=layers).build().num_features == 16


@pytest.fixture
def own_module(monkeypatch):
    module = ModuleType("own_networks")
    module.recorder = Recorder
    module.number = 7
    module.nothing = lambda **_: nn.Flatten()
    monkeypatch.setitem(sys.modules, "own_networks", module)


def test_a_factory_of_ones_own(own_module):
    config = BackboneConfig(name="own_networks:recorder", args={"num_features": 7})
    network = config.build(2, allow_factory=[config.name])
    assert isinstance(network, Recorder)
    assert (network.channels, network.num_features) == (2, 7)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "resnet51",
            {},
            r"unknown backbone 'resnet51': did you mean .*resnet50.*swav list backbones",
        ),
        ("no_such_package:network", {}, "'no_such_package:network' cannot be imported"),
        ("own_networks:missing", {}, "'own_networks:missing' cannot be imported"),
        ("own_networks:nothing", {}, "must return an nn.Module with an int num_features"),
        ("own_networks:number", {}, "is no factory of a network that takes in_chans"),
        ("os:system", {}, "'os:system' is no factory of a network that takes in_chans"),
        ("own_networks:recorder", {"depth": 3}, "takes depth, in_chans: .*unexpected.*'depth'"),
        (
            "cifar_resnet18",
            {"colour": 1},
            r"backbone.args \{'colour': 1\} do not fit cifar_resnet18",
        ),
    ],
)
def test_what_cannot_be_built_is_named(own_module, name, args, message):
    with pytest.raises(ValueError, match=message):
        BackboneConfig(name=name, args=args).build(allow_factory=name)


@pytest.mark.parametrize("allowed", [(), "own", "own_networks", ["own_networks:recorder2"]])
def test_a_factory_that_is_not_allowed_is_not_imported(allowed):
    assert "own_networks" not in sys.modules
    with pytest.raises(ValueError, match=r"add --allow-factory own_networks:recorder "):
        BackboneConfig(name="own_networks:recorder").build(allow_factory=allowed)
    with pytest.raises(ValueError, match=r"'torch\.hub:load' is a factory"):
        BackboneConfig(name="torch.hub:load", args={"repo_or_dir": "there"}).build()


@pytest.mark.parametrize(
    "args",
    [{"checkpoint_path": "weights.pth"}, {"pretrained_cfg": {"url": "http://localhost"}}],
)
def test_a_config_cannot_have_timm_read_a_file_or_an_address(args: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"--init"):
        BackboneConfig(name="resnet10t", args=args)
