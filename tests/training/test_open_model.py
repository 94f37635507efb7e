"""Everything that can be named to be evaluated, opened."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from tiny import tiny_pictures, write_pictures

from swav import cli
from swav.data.sources.open import SourceConfig
from swav.evals import KNNConfig, knn
from swav.evals.harness.extract import encode_all
from swav.evals.harness.patch_kmeans import patch_kmeans_encoder
from swav.training.open_model import ModelInput, is_model, open_model, with_filters

SHOWN = ModelInput(size=32)
PICTURES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_torchvision_state_dict_gives_torchvisions_features(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = torchvision.models.resnet18()
    wrapped = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    wrapped["module.prototypes.weight"] = torch.ones(3, 4)
    path = tmp_path / "swav.pth.tar"
    torch.save({"state_dict": wrapped, "epoch": 3}, path)
    model = open_model(str(path), SHOWN)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = theirs.eval()(PICTURES)
        torch.testing.assert_close(model.network(PICTURES), expected)
        assert not torch.allclose(model.untrained(PICTURES), expected)
    assert (model.name, model.transform.input_size) == ("swav.pth.tar", (3, 32, 32))
    assert model.clusters is None


def test_another_network_is_named_by_hand_and_wrong_weights_are_refused(tmp_path: Path) -> None:
    network = timm.create_model("resnet10t", num_classes=0)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    with pytest.raises(ValueError, match=r"is no ResNet.*NAME="):
        open_model(str(path), SHOWN)
    opened = open_model(f"resnet10t={path}", SHOWN)
    with torch.no_grad():
        torch.testing.assert_close(opened.network(PICTURES), network.eval()(PICTURES))
    with pytest.raises(ValueError, match="does not hold the weights of resnet18"):
        open_model(f"resnet18={path}", SHOWN)


def test_a_folder_of_timm_is_opened_with_its_own_transform(tmp_path: Path) -> None:
    network = timm.create_model("resnet10t", num_classes=0)
    settings = {"input_size": (3, 24, 24), "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    settings |= {"interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "center"}
    config = {"pretrained_cfg": settings}
    timm.models.save_for_hf(network, str(tmp_path / "net"), model_config=config)
    model = open_model(str(tmp_path / "net"), ModelInput())
    assert model.transform.input_size == (3, 24, 24)
    assert model.transform.mean == (0.1, 0.2, 0.3)
    assert (model.transform.interpolation, model.transform.crop_pct) == ("bilinear", 0.9)
    with torch.no_grad():
        torch.testing.assert_close(model.network(PICTURES), network.eval()(PICTURES))


def test_random_is_untrained_the_same_each_time_and_of_any_channels() -> None:
    one, two = (open_model("random:resnet10t", ModelInput(channels=1, size=16)) for _ in range(2))
    assert one.network is one.untrained
    for key, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[key]), key
    assert one.transform.input_size == (1, 16, 16)
    assert one.source.channels == 1
    pixels = open_model("pixels", ModelInput(channels=1))
    assert (pixels.network, pixels.untrained, pixels.source.channels) == (None, None, 1)


def test_patch_kmeans_has_as_many_filters_as_are_named() -> None:
    pictures = tiny_pictures()
    for word, filters in (("patch-kmeans", 200), ("patch-kmeans:30", 30)):
        model = open_model(word, ModelInput())
        assert (model.name, model.network, model.untrained) == (word, None, None)
        assert model.encoder_of(pictures, workers=0)([pictures[0]]).shape == (1, 4 * filters)
    for filters in ("", "1", "many", "100000"):
        with pytest.raises(ValueError, match="number of filters must be from 2"):
            open_model(f"patch-kmeans:{filters}", ModelInput())


def test_filters_are_an_option_of_the_one_that_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pictures(tmp_path)
    words = ["evaluate", "patch-kmeans", data, "--tasks", "knn", "--knn.k", "5", "--json"]
    assert cli.main([*words, "--filters", "30"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    pictures = SourceConfig(data=data).build()
    features = encode_all(patch_kmeans_encoder(pictures, num_filters=30), pictures)
    assert found["metrics"] == knn.run(KNNConfig(k=(5,)), features).metrics
    assert found["model"] == "patch-kmeans:30"
    assert {"pixels", "patch-kmeans"} <= found["baselines"].keys()
    assert with_filters(["pixels", "patch-kmeans", "patch-kmeans:8"], 30)[1:] == [
        *("patch-kmeans:30", "patch-kmeans:8"),
    ]
    assert cli.main(["evaluate", "pixels", data, "--filters", "30"]) == 2
    assert "of patch-kmeans, which is not among the models" in capsys.readouterr().err


def test_a_word_is_a_model_or_the_data(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("run/config.yaml", "net/config.json", "weights.pth", "photos.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    models = ("run", "net", "weights.pth")
    assert all(is_model(str(tmp_path / name)) for name in models)
    assert all(is_model(word) for word in ("random", "random:vit_tiny", "pixels", "resnet50"))
    assert all(is_model(word) for word in ("patch-kmeans", "patch-kmeans:1600"))
    assert not any(is_model(str(tmp_path / name)) for name in ("photos", "photos.tar", "nowhere"))
    assert not any(is_model(word) for word in ("emoji", "cifar10:data", "photos/"))


def test_what_is_nothing_is_told_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"nowhere is no run folder.*--out(.|\n)*random"):
        open_model("nowhere", SHOWN)


def test_a_transformer_with_a_class_token_reads_coloured_pictures_of_any_size() -> None:
    for size, expected in ((None, 224), (32, 32)):
        model = open_model("random:vit_tiny_patch16_224", ModelInput(size=size))
        assert model.transform.input_size == (3, expected, expected)
        with torch.no_grad():
            assert model.network(torch.zeros(1, 3, expected, expected)).shape == (1, 192)


def test_lite0_is_a_model_with_the_settings_of_its_weights() -> None:
    assert is_model("lite0")
    model = open_model("lite0", ModelInput(size=64))
    assert model.network is not None
    assert model.untrained is not None
    assert model.transform is not None
    assert model.transform.mean == model.transform.std == (0.5, 0.5, 0.5)
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features, random = model.network(pictures), model.untrained(pictures)
    assert features.shape == (2, 1280)
    assert not torch.allclose(features, random)
