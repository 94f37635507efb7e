"""Weights to start from: each form fits its network, and what does not is refused with a remedy."""

import hashlib
import json
import logging
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from tiny import WITH_BATCHNORM, tiny_config, write_pictures

import swav
from swav import cli, config
from swav.exchange import lite0, published
from swav.nn.backbones import BackboneConfig
from swav.recipes import TrainConfig, make_config, with_channels
from swav.recipes.cifar10_cpu import SMALL_RESNET
from swav.recipes.start_network import LITE0_BACKBONE
from swav.training.networks import build_objective, untrained_network
from swav.training.start import check_start, open_start, transform_of_start

RESNET10T = BackboneConfig(name="resnet10t")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and nothing in the cache."""

    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(published, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(published.urllib.request, "urlopen", fail)
    monkeypatch.setattr(published, "hf_hub_download", pytest.fail)
    monkeypatch.setattr(published.constants, "HF_HUB_OFFLINE", False)


def started(init: str | Path, backbone: BackboneConfig = RESNET10T) -> TrainConfig:
    return tiny_config(backbone=backbone, init=str(init))


def saved(path: Path, **args: Any) -> dict[str, torch.Tensor]:
    """Write the weights of timm's resnet10t of another seed."""
    torch.manual_seed(7)
    state = timm.create_model("resnet10t", **args).state_dict()
    torch.save(state, path)
    return state


def backbone_of(made: TrainConfig, **options: Any) -> dict[str, torch.Tensor]:
    start = open_start(made, **options)
    assert start is not None
    return build_objective(made, num_images=64, weights=start.tensors).encoder.state_dict()


def test_random_opens_nothing() -> None:
    assert open_start(tiny_config()) is None


def test_a_file_fills_the_whole_backbone(folder: Path) -> None:
    state = saved(folder / "weights.pth")
    made = started(folder / "weights.pth")
    start = open_start(made)
    assert start is not None
    assert start.record == {
        "init": str(folder / "weights.pth"),
        "name": "weights.pth",
        "sha256": hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest(),
        "licence": None,
        "layout": "plain",
    }
    assert "tensors matched" in start.summary
    assert "fc.weight" in start.summary, "what was not used is said"
    for name, tensor in backbone_of(made).items():
        assert torch.equal(tensor, state[name]), name


def test_the_untrained_network_stays_random(folder: Path) -> None:
    saved(folder / "weights.pth")
    untrained = untrained_network(started(folder / "weights.pth"), num_images=64).state_dict()
    expected = untrained_network(started("random"), num_images=64).state_dict()
    assert all(torch.equal(untrained[name], tensor) for name, tensor in expected.items())


def test_missing_tensors_must_be_allowed(folder: Path) -> None:
    state = saved(folder / "whole.pth", num_classes=0)
    lost = state.pop("layer4.0.conv2.weight")
    torch.save(state, folder / "lacking.pth")
    made = started(folder / "lacking.pth")
    with pytest.raises(ValueError, match=r"layer4\.0\.conv2\.weight.*--allow-missing"):
        open_start(made)
    filled = backbone_of(made, allow_missing=True)
    fresh = build_objective(made, num_images=64).encoder.state_dict()
    assert torch.equal(filled["layer4.0.conv2.weight"], fresh["layer4.0.conv2.weight"])
    assert not torch.equal(filled["layer4.0.conv2.weight"], lost)
    assert torch.equal(filled["conv1.0.weight"], state["conv1.0.weight"])


@pytest.mark.parametrize(
    ("init", "backbone", "messages"),
    [
        ("nowhere.pth", RESNET10T, ["--init 'nowhere.pth'", "random, timm, lite0, RUN", "FILE"]),
        ("tim", RESNET10T, ["--init 'tim'", "Did you mean 'timm'?"]),
        (".", RESNET10T, ["--init .", "no run folder (no config.yaml)", "--out of a training"]),
        ("lite0", RESNET10T, ["tf_efficientnet_lite0", "this run has resnet10t", "--backbone"]),
        ("timm", SMALL_RESNET, ["of resnet18 (layers 1,1,1,1;", "--backbone", "pretrained=True"]),
        ("timm", BackboneConfig(name="cifar_resnet18"), ["of cifar_resnet18", "--backbone"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(
    init: str, backbone: BackboneConfig, messages: list[str]
) -> None:
    with pytest.raises(ValueError, match="--init") as refused:
        open_start(started(init, backbone))
    for message in messages:
        assert message in str(refused.value)


def test_a_file_of_another_network_is_refused(folder: Path) -> None:
    saved(folder / "weights.pth")
    with pytest.raises(ValueError, match=r"--init .*weights\.pth for resnet18 .*--backbone NAME"):
        open_start(started(folder / "weights.pth", BackboneConfig(name="resnet18")))


@pytest.mark.usefixtures("offline")
def test_without_a_connection_published_weights_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no route to host") as refused:
        open_start(started("timm"))
    for said in ("resnet10t", "huggingface.co/timm/resnet10t.c3_in1k", "--init FILE", "lite0"):
        assert said in str(refused.value)


@pytest.mark.usefixtures("offline")
def test_the_hub_is_left_alone_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        open_start(started("timm"))


@pytest.mark.usefixtures("offline")
def test_published_weights_come_from_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "model.safetensors"
    state = saved(folder / "weights.pth")
    safetensors.torch.save_file(state, path)
    monkeypatch.setattr(published, "try_to_load_from_cache", lambda *_: str(path))
    made = started("timm")
    start = open_start(made)
    assert start is not None
    assert (start.name, start.licence) == ("resnet10t.c3_in1k", "apache-2.0")
    assert start.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in backbone_of(made).items():
        assert torch.equal(tensor, state[name]), name
    path.write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold the weights"):
        open_start(made)


def test_lite0_fills_its_network() -> None:
    made = started("lite0", LITE0_BACKBONE)
    start = open_start(made)
    assert start is not None
    assert (start.licence, start.sha256) == ("Apache-2.0", lite0.SHA256)
    filled = backbone_of(made)
    untrained = untrained_network(made, num_images=64).state_dict()
    assert len(start.tensors) == len(filled)
    assert not torch.equal(filled["conv_stem.weight"], untrained["conv_stem.weight"])


def test_the_network_of_a_start_comes_along() -> None:
    made = make_config("demo", init="lite0")
    assert (made.init, made.backbone) == ("lite0", LITE0_BACKBONE)
    assert made.views.mean == made.views.std == (0.5, 0.5, 0.5)
    named = make_config("demo", init="timm", backbone=BackboneConfig(name="resnet26"))
    assert named.backbone.name == "resnet26"
    assert named.views.mean == (0.485, 0.456, 0.406)


def test_a_rate_at_which_weights_do_not_last_is_said() -> None:
    made = make_config("demo", init="lite0")
    (said,) = [remark for remark in check_start(made) if "learning-rate" in remark]
    assert said.startswith(f"adamw at {made.optim.learning_rate:g} makes published weights")
    assert "--optim.learning-rate 0.0001 or less" in said
    for optimizer in ("lars", "sgd"):
        other = replace(made, optim=replace(made.optim, optimizer=optimizer))
        assert not any("learning-rate" in remark for remark in check_start(other))


def test_more_stages_than_there_are_are_refused() -> None:
    made = make_config("demo", init="lite0")
    with pytest.raises(ValueError, match="--tune last:9: there are 8 stages"):
        check_start(replace(made, tune="last:9"))
    assert not check_start(replace(made, tune="head"))
    assert check_start(replace(made, tune="last:8"))[0].startswith("weights of --init lite0")


def test_another_mean_than_that_of_the_weights_is_said() -> None:
    made = make_config("demo", init="lite0")
    made = replace(made, optim=replace(made.optim, learning_rate=1e-4))
    (worse,) = check_start(made)
    assert "frozen, beside the scores" in worse
    assert not check_start(make_config("demo"))
    other = replace(made, views=make_config("demo").views)
    _, remark = check_start(other)
    assert "--views.mean 0.5 0.5 0.5 --views.std 0.5 0.5 0.5" in remark


def test_a_frozen_network_is_shown_what_its_weights_know() -> None:
    shown = transform_of_start(make_config("demo", init="lite0"))
    assert (shown.input_size, shown.interpolation) == ((3, 224, 224), "bicubic")
    assert (shown.mean, shown.crop_pct) == ((0.5,) * 3, 0.875)
    random = make_config("demo")
    assert transform_of_start(random).input_size == (3, *random.views.groups[0].size)


def test_a_file_names_the_network_where_it_can(folder: Path) -> None:
    torch.save(timm.create_model("resnet34").state_dict(), folder / "weights.pth")
    made = make_config("demo", init=str(folder / "weights.pth"))
    assert made.backbone == BackboneConfig(name="resnet34")


def train(folder: Path, *words: str) -> int:
    """Run a training of two steps on drawn pictures, without scores."""
    data = write_pictures(folder)
    made = tiny_config(data, backbone=RESNET10T, epochs=1, evaluate_at_end=False)
    crops = (replace(made.views.groups[0], size=(32, 32)),)
    optim = replace(made.optim, batch_size=32)
    made = replace(made, views=replace(made.views, groups=crops), optim=optim)
    config.dump(made, folder / "tiny.yaml")
    return cli.main(["train", "--config", "tiny.yaml", *words])


def test_a_run_records_its_start_and_goes_on_from_it_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    saved(folder / "weights.pth")
    with caplog.at_level(logging.INFO):
        assert train(folder, "--init", "weights.pth", "--out", "run") == 0
    assert "starts from weights.pth" in caplog.text
    sha256 = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    record = json.loads((folder / "run/run.json").read_text())
    assert record["start"]["sha256"] == sha256
    assert swav.load("run").config.init == "weights.pth"
    readme = (folder / "run/model/README.md").read_text()
    assert f"`weights.pth` (licence not known, sha256 `{sha256}`)" in readme

    resume = ["train", "--resume", "--out", "run"]
    assert cli.main([*resume, "--init", "random"]) == cli.FAILURE
    assert "init was 'weights.pth', now 'random'" in capsys.readouterr().err
    (folder / "weights.pth").rename("moved.pth")
    assert cli.main(resume) == 0, "all weights are in the checkpoint"

    assert train(folder, "--init", "run", "--dry-run") == 0
    assert "starts from run (run, sha256" in capsys.readouterr().out
    (folder / "moved.pth").rename("weights.pth")
    torch.save(timm.create_model("resnet10t").state_dict(), "weights.pth")
    for path in (folder / "run/checkpoints").iterdir():
        path.rename(folder / path.name)
    assert cli.main(resume) == cli.FAILURE
    assert "started from other weights" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_a_plan_refuses_as_the_run_does(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, "--init", "nonexistent", "--out", "run", *words) == cli.USAGE
    captured = capsys.readouterr()
    assert "unknown --init 'nonexistent'" in captured.err
    assert not captured.out
    assert not (folder / "run").exists()


def test_a_plan_from_random_weights_names_a_better_start(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(folder, "--dry-run") == 0
    command = f"swav train {folder / 'drawn.npz'} --init lite0"
    planned = capsys.readouterr().out
    assert command in planned
    assert "training this network further" not in planned


def test_a_plan_from_published_weights_says_whether_to_train_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(folder / "weights.pth")
    assert train(folder, "--init", "weights.pth", "--dry-run") == 0
    assert "training this network further (--tune all) is unlikely" in capsys.readouterr().out


def test_a_cut_down_network_has_no_plain_name() -> None:
    assert SMALL_RESNET.title.startswith("resnet18 (layers 1,1,1,1; channels 32,64,128,256")
    assert replace(RESNET10T, args={"zero_init_last": False}).title == "resnet10t"
    assert WITH_BATCHNORM.title == "resnet10t (channels 8,8,16,16; stem width 8)"


@pytest.mark.parametrize("channels", [1, 5])
def test_a_start_of_colours_sees_other_channels(channels: int) -> None:
    usual = started("lite0", LITE0_BACKBONE)
    start = open_start(replace(usual, data=replace(usual.data, channels=channels)))
    assert start is not None
    assert f"conv_stem.weight to {channels}" in start.summary
    assert start.record["adapted"] == [f"conv_stem.weight to {channels}"]
    ours, theirs = (LITE0_BACKBONE.build(number).eval() for number in (channels, 3))
    ours.load_state_dict(dict(start.tensors))
    theirs.load_state_dict(dict(lite0.read().backbone))
    grey = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        seen = ours(grey.expand(-1, channels, -1, -1))
        wanted = theirs(grey.expand(-1, 3, -1, -1))
    if channels == 1:  # five planes weigh the colours anew
        torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-5)
    assert seen.shape == wanted.shape


def test_the_input_of_a_start_has_the_channels_of_the_pictures() -> None:
    config = with_channels(make_config("demo", init="lite0"), 1)
    assert config.input is not None
    assert (config.input.input_size[0], config.input.mean, config.input.std) == (1, (0.5,), (0.5,))
