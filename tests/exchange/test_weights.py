"""Files in the layouts of others: every tensor has its place, and features are theirs."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from foreign import (
    PICTURES,
    Named,
    Theirs,
    as_dinov2,
    below,
    dinov2_features,
    lightly,
    lightly_lightning,
    official,
    official_one_head,
    resnet,
    solo,
    solo_of_old,
    vissl,
    vissl_flat,
)
from timm.layers import SwiGLUPacked
from torch import nn

from swav.exchange.weights import ForeignWeights, match, read_weights
from swav.nn.heads import HeadConfig


@pytest.mark.parametrize(
    ("layout", "build"),
    [
        ("swav", official),
        ("swav", official_one_head),
        ("vissl", vissl),
        ("vissl", vissl_flat),
        ("lightly", lightly),
        ("lightly", lightly_lightning),
        ("solo-learn", solo),
        ("solo-learn", solo_of_old),
    ],
)
def test_every_tensor_of_a_layout_has_its_place(
    layout: str, build: Callable[[Theirs], tuple[Any, set[str]]], tmp_path: Path
) -> None:
    theirs = Theirs()
    tree, ignored = build(theirs)
    torch.save(tree, tmp_path / "weights.pth")
    weights = read_weights(tmp_path / "weights.pth")
    assert (weights.layout, set(weights.ignored)) == (layout, ignored)
    assert weights.backbone.keys() == theirs.backbone.keys()
    assert_features(theirs.network, weights, resnet())
    head = HeadConfig(hidden_dim=12, embed_dim=6).build(32).eval()
    head.load_state_dict({key.removeprefix("projector."): v for key, v in weights.head.items()})
    features = torch.randn(3, 32)
    torch.testing.assert_close(head(features), theirs.head(features), atol=1e-6, rtol=0)
    assert len(weights.prototypes) == len(theirs.prototypes)
    for ours, given in zip(weights.prototypes, theirs.prototypes, strict=True):
        torch.testing.assert_close(ours, given, atol=1e-6, rtol=0)


def assert_features(theirs: Any, weights: ForeignWeights, network: Any) -> None:
    """Check a network without classifier that takes the weights against the one that has them."""
    network.reset_classifier(0)
    theirs.reset_classifier(0)
    found = match(network.state_dict(), weights)
    assert (found.missing, found.misshapen, found.unexpected) == ((), (), ())
    network.load_state_dict(found.state)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(PICTURES), theirs(PICTURES), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("file", "wrapper"),
    [
        ("weights.safetensors", None),
        ("safetensors.bin", None),
        ("weights.pth", None),
        ("weights.pth", "state_dict"),
        ("weights.pth", "model"),
        ("old.pth", "model_state_dict"),
    ],
)
def test_plain_files(file: str, wrapper: str | None, tmp_path: Path) -> None:
    theirs = Theirs()
    path, tensors = tmp_path / file, theirs.network.state_dict()
    if "safetensors" in file:
        safetensors.torch.save_file(tensors, path, metadata={"license": "MIT"})
    else:
        tree = {wrapper: below("module.", tensors)} if wrapper else tensors
        torch.save(tree, path, _use_new_zipfile_serialization=file != "old.pth")
    weights = read_weights(path)
    assert (weights.layout, weights.head, weights.prototypes) == ("plain", {}, ())
    assert weights.licence == ("MIT" if "safetensors" in file else None)
    assert len(weights.sha256) == 64
    network = resnet()
    network.reset_classifier(0)
    found = match(network.state_dict(), weights)
    assert set(found.ignored) == {"fc.weight", "fc.bias"}
    assert found.summary().startswith(f"{len(tensors) - 2} tensors matched, 2 ignored (fc.")
    assert_features(theirs.network, weights, network)


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("form", ["published", "chunked", "teacher"])
def test_dinov2(form: str, registers: bool, tmp_path: Path) -> None:
    vit: dict[str, Any] = dict(img_size=32, depth=2, init_values=1.0, num_classes=0)
    if registers:  # with the hidden layers of the giant, as timm builds it
        vit |= dict(reg_tokens=4, no_embed_class=True, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    torch.manual_seed(1)
    given = timm.create_model("vit_tiny_patch16_224", **vit).state_dict()
    given = {key: torch.randn_like(value) * 0.1 for key, value in given.items()}
    published = as_dinov2(given, registers=registers)
    tree: Any = published
    if form == "chunked":
        tree = {key.replace("blocks.", "blocks.0."): value for key, value in published.items()}
    if form == "teacher":
        heads = {"dino_head.last_layer.weight_g": torch.ones(9, 1)}
        tree = {"teacher": {**below("module.backbone.", published), **below("module.", heads)}}
    torch.save(tree, tmp_path / "weights.pth")
    weights = read_weights(tmp_path / "weights.pth")
    expected = {"mask_token"} | ({"dino_head.last_layer.weight_g"} if form == "teacher" else set())
    assert (weights.layout, set(weights.ignored)) == ("dinov2", expected)
    assert weights.backbone.keys() == given.keys()
    network = timm.create_model("vit_tiny_patch16_224", **vit).eval()
    network.load_state_dict(match(network.state_dict(), weights).state)
    with torch.no_grad():
        features = network(PICTURES)
    torch.testing.assert_close(features, dinov2_features(published, PICTURES), atol=1e-6, rtol=0)


def test_dino_takes_the_teacher_and_leaves_its_head(tmp_path: Path) -> None:
    vit = dict(img_size=32, depth=1, num_classes=0)
    theirs = timm.create_model("vit_tiny_patch16_224", **vit).eval()
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_v": torch.ones(2, 2)}
    teacher = {**below("backbone.", theirs.state_dict()), **head}
    student = below("module.", {key: torch.zeros_like(value) for key, value in teacher.items()})
    tree = {"student": student, "teacher": teacher, "epoch": 3, "args": Namespace(arch="vit_tiny")}
    torch.save(tree, tmp_path / "checkpoint.pth")
    weights = read_weights(tmp_path / "checkpoint.pth")
    assert weights.layout == "dino"
    assert set(weights.ignored) == {*head, "student", "epoch", "args"}
    assert_features(theirs, weights, timm.create_model("vit_tiny_patch16_224", **vit))


def plain(tmp_path: Path, tensors: Named) -> ForeignWeights:
    torch.save(tensors, tmp_path / "weights.pth")
    return read_weights(tmp_path / "weights.pth")


def test_a_network_takes_all_or_nothing(tmp_path: Path) -> None:
    network = Theirs().network
    network.reset_classifier(0)
    own = network.state_dict()
    given = {**own, "layer4.0.conv1.weight": torch.zeros(1)}
    given["layer4.0.conv3.weight"] = given.pop("layer4.0.conv2.weight")
    weights = plain(tmp_path, given)
    with pytest.raises(ValueError, match=r"1 missing .layer4.0.conv2.weight.*1 of another shape"):
        match(own, weights)
    with pytest.raises(
        ValueError, match=r"1 in the file, 32x24x3x3 in the network.*nearest in the file to layer4"
    ):
        match(own, weights)
    found = match(own, weights, allow_missing=True)
    assert found.missing == ("layer4.0.conv2.weight",)
    assert found.state["layer4.0.conv2.weight"] is own["layer4.0.conv2.weight"]
    assert found.unexpected == ("layer4.0.conv3.weight",)


def test_less_than_nine_tenths_are_refused_even_where_some_may_be_missing(tmp_path: Path) -> None:
    own = Theirs().backbone
    half = {key: value for key, value in own.items() if not key.startswith("layer4")}
    for network, weights in ((own, half), (half, own)):  # of which each would be a part
        with pytest.raises(ValueError, match=r"does not fit the network: \d+ tensors matched"):
            match(network, plain(tmp_path, weights), allow_missing=True)
    with pytest.raises(ValueError, match="0 tensors matched"):
        match(own, plain(tmp_path, {"a": torch.zeros(2)}))


def test_files_without_counters_of_batchnorm_fit(tmp_path: Path) -> None:
    own = Theirs().backbone
    given = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
    found = match(own, plain(tmp_path, given))
    assert len(found.matched) == len(given)
    assert not found.missing


@pytest.mark.parametrize(
    ("head", "mapped"),
    [
        ({"0.weight": (4, 8), "2.weight": (3, 4)}, ["projector.0.bias", "projector.0.weight"]),
        ({"0.weight": (4, 8), "0.bias": (4,), "3.weight": (3, 4)}, ["projector.2.weight"]),
        ({"weight": (3, 8), "bias": (3,)}, ["projector.bias", "projector.weight"]),
        ({"0.weight": (4, 8), "1.running_mean": (4,), "2.weight": (3, 4)}, []),
        ({"0.weight": (4, 8), "2.weight": (5, 4), "4.weight": (3, 5)}, []),
        ({"0.bias": (4,)}, []),
        ({"attention.weight": (4, 8)}, []),
    ],
)
def test_heads_of_our_form_are_renumbered_and_others_left(
    head: dict[str, tuple[int, ...]], mapped: list[str], tmp_path: Path
) -> None:
    layers = {f"projection_head.{key}": torch.ones(shape) for key, shape in head.items()}
    weights = plain(tmp_path, {"conv1.weight": torch.ones(1, 3, 1, 1), **layers})
    assert set(mapped) <= weights.head.keys()
    assert set(weights.ignored) == (set() if mapped else set(layers))
