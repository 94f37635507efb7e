"""Weights of others as run folders: networks, heads and clusters are theirs, or nothing is made."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision
from foreign import (
    PICTURES,
    Theirs,
    as_dinov2,
    below,
    dinov2_features,
    lightly,
    lightly_lightning,
    official,
    official_one_head,
    solo,
    solo_of_old,
    vissl,
    vissl_flat,
)
from tiny import write_pictures
from torch import Tensor, nn

import swav
from swav import cli
from swav.data.eval_transform import EvalTransform
from swav.exchange import lite0, published
from swav.exchange.weights import match
from swav.nn.backbones import BackboneConfig
from swav.recipes.train_config import read_train_config
from swav.training import imported
from swav.training.imported import open_import
from swav.training.trained_run import TrainedRun

RESNET = BackboneConfig(name="resnet18", args={"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]})
RESNET_WORDS = (
    *("--backbone", "resnet18", "--backbone.args.layers", "[1,1,1,1]"),
    *("--backbone.args.channels", "[8,16,24,32]"),
)
VIT: dict[str, Any] = {"img_size": 32, "depth": 2, "init_values": 1.0}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(tree: Any, backbone: BackboneConfig | None = RESNET, **options: Any) -> TrainedRun:
    """Return the run folder of a file with these tensors, opened."""
    torch.save(tree, "weights.pth")
    return swav.load(swav.import_weights("weights.pth", out="run", backbone=backbone, **options))


def assert_same_features(run: TrainedRun, theirs: Callable[[Tensor], Tensor]) -> None:
    """Check the network of the run, and the one that timm opens, against that of the tensors."""
    exported = timm.create_model("local-dir:run/model", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        for network in (run.backbone, exported):
            torch.testing.assert_close(network(PICTURES), theirs(PICTURES), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("build", "method"),
    [
        (official, "deepcluster"),
        (official_one_head, "swav"),
        (vissl, "deepcluster"),
        (vissl_flat, "deepcluster"),
        (lightly, "deepcluster"),
        (lightly_lightning, "deepcluster"),
        (solo, "swav"),
        (solo_of_old, "swav"),
    ],
)
def test_clusters_are_those_of_the_tensors(
    build: Callable[[Theirs], tuple[Any, set[str]]], method: str
) -> None:
    theirs = Theirs()
    tree, _ = build(theirs)
    run = made(tree)
    theirs.network.reset_classifier(0)
    assert run.config.method.name == method
    assert_same_features(run, theirs.network)
    record = json.loads(Path("run/run.json").read_text())
    number = len(theirs.head.state_dict()) + len(theirs.prototypes)
    assert record["matching"].startswith(f"{len(theirs.backbone)} tensors matched")
    assert record["head"].startswith(f"{number} tensors matched")
    features = torch.randn(3, 32)
    with torch.no_grad():
        embeddings = F.normalize(theirs.head(features), dim=1)
        cosines = embeddings @ F.normalize(theirs.prototypes[0], dim=1).T
    expected = (cosines / 0.1).softmax(dim=1)
    torch.testing.assert_close(run.objective.cluster(features), expected, atol=1e-6, rtol=0)
    prototypes = [value for key, value in run.objective.state_dict().items() if ".heads." in key]
    for own, given in zip(prototypes, theirs.prototypes, strict=True):
        torch.testing.assert_close(own, given, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["swav", "sela"])
def test_another_method_may_have_the_same_parts(method: str) -> None:
    tree, _ = official(Theirs())
    run = made(tree, method=method)
    assert run.config.method.name == method
    assert run.config.method.num_prototypes == (5, 4)  # type: ignore[union-attr]


def test_a_head_without_hidden_layers() -> None:
    theirs = Theirs()
    head = nn.Linear(32, 6, bias=False)
    run = made(
        {
            **theirs.backbone,
            "projection_head.weight": head.weight.detach(),
            "prototypes.weight": theirs.prototypes[0],
        }
    )
    assert run.config.method.head.hidden_dim == 0  # type: ignore[union-attr]
    assert torch.equal(run.objective.state_dict()["projector.weight"], head.weight)


@pytest.mark.parametrize(
    ("kept", "method", "said"),
    [
        ((), None, "none; no prototypes, so swav cluster makes k-means"),
        (("projection_head",), None, "9 tensors matched, as of SimCLR; no prototypes"),
        (("projection_head",), "vicreg", "9 tensors matched, as of VICReg; no prototypes"),
        (("prototypes",), None, "none; 9 prototypes left out"),
        (("projection_head", "prototypes"), "simclr", "as of SimCLR; 9 prototypes left out"),
    ],
)
def test_untrained_prototypes_are_no_clusters(
    kept: tuple[str, ...], method: str | None, said: str
) -> None:
    theirs = Theirs()
    tree, _ = official(theirs)
    names = {key: key.removeprefix("module.").partition(".")[0] for key in tree}
    heads = ("projection_head", "prototypes")
    run = made(
        {key: tree[key] for key, part in names.items() if part not in heads or part in kept},
        method=method,
    )
    assert run.objective.cluster(torch.zeros(1, 32)) is None
    assert said in json.loads(Path("run/run.json").read_text())["head"]
    if "projection_head" in kept:
        for key, value in theirs.head.state_dict().items():
            assert torch.equal(run.objective.state_dict()[f"projector.{key}"], value), key


def test_a_plain_file_tells_its_network_and_what_it_is_shown() -> None:
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), "resnet18-f37072fd.pth")
    run = swav.load(swav.import_weights("resnet18-f37072fd.pth", out="run"))
    theirs.fc = nn.Identity()
    assert_same_features(run, theirs)
    assert run.config.backbone == BackboneConfig(name="resnet18")
    shown = EvalTransform(
        input_size=(3, 224, 224),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bilinear",
        crop_pct=0.875,
    )
    assert run.transform == shown
    assert run.config.views.mean == shown.mean
    written = json.loads(Path("run/model/config.json").read_text())["pretrained_cfg"]
    assert EvalTransform.from_timm(written) == shown


@pytest.mark.parametrize("channels", [1, 3])
def test_timms_layout_of_any_channels(channels: int) -> None:
    torch.manual_seed(3)
    theirs = timm.create_model(RESNET.name, in_chans=channels, **RESNET.args).eval()
    safetensors.torch.save_file(theirs.state_dict(), "weights.safetensors", {"license": "MIT"})
    run = swav.load(swav.import_weights("weights.safetensors", out="run", backbone=RESNET))
    theirs.reset_classifier(0)
    pictures = PICTURES[:, :channels]
    with torch.no_grad():
        torch.testing.assert_close(run.backbone(pictures), theirs(pictures), atol=1e-6, rtol=0)
    assert run.transform.input_size[0] == len(run.transform.mean) == channels
    assert "licence MIT" in Path("run/model/README.md").read_text()


def test_dinov2() -> None:
    backbone = BackboneConfig(name="vit_tiny_patch16_224", args=VIT)
    torch.manual_seed(1)
    given = timm.create_model(backbone.name, num_classes=0, **VIT).state_dict()
    tensors = as_dinov2(
        {key: torch.randn_like(value) * 0.1 for key, value in given.items()}, registers=False
    )
    run = made(tensors, backbone)
    assert_same_features(run, lambda pictures: dinov2_features(tensors, pictures))
    assert run.transform.input_size == (3, 32, 32)
    assert run.transform.mean == (0.485, 0.456, 0.406), "timm's own of that name were shown 0.5"


def test_dino_leaves_its_head() -> None:
    args = {"img_size": 32, "depth": 1}
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, **args).eval()
    teacher = {**below("backbone.", theirs.state_dict()), "head.mlp.0.weight": torch.ones(2, 2)}
    run = made({"teacher": teacher}, BackboneConfig(name="vit_tiny_patch16_224", args=args))
    assert_same_features(run, theirs)
    assert "head.mlp.0.weight" in json.loads(Path("run/run.json").read_text())["matching"]


def test_lite0() -> None:
    run = swav.load(swav.import_weights("lite0", out="run"))
    theirs = timm.create_model(lite0.NETWORK, num_classes=0).eval()
    found = match(theirs.state_dict(), lite0.read())
    theirs.load_state_dict(found.state)
    assert_same_features(run, theirs)
    record = json.loads(Path("run/run.json").read_text())
    assert record["matching"].startswith("294 tensors matched")
    assert record["start"]["licence"] == "Apache-2.0"
    assert record["start"]["sha256"] == lite0.SHA256
    assert lite0.SHA256 in Path("run/model/README.md").read_text()
    assert (run.transform.mean, run.transform.crop_pct) == ((0.5,) * 3, 0.875)


@pytest.mark.parametrize("word", ["resnet10t", "timm:resnet10t"])
def test_published_weights_of_timm(
    word: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(published.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"^the published weights of resnet10t.*give it as FILE"):
        swav.import_weights(word, out="run")
    assert not list(folder.iterdir())
    torch.manual_seed(7)
    theirs = timm.create_model("resnet10t").eval()
    safetensors.torch.save_file(theirs.state_dict(), "model.safetensors")
    path = str(folder / "model.safetensors")
    monkeypatch.setattr(published, "try_to_load_from_cache", lambda *_: path)
    run = swav.load(swav.import_weights(word, out="run"))
    theirs.reset_classifier(0)
    assert_same_features(run, theirs)
    assert (run.config.init, run.config.backbone.name) == ("timm", "resnet10t")


class Evil:
    """What makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("trace",)


def without(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != f"module.{name}"}


def changed(tree: dict[str, Any], name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {**tree, f"module.{name}": torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: {**tree, "a": Evil()}, "code or objects beside tensors"),
        (lambda tree: without(tree, "bn1.bias"), r"1 missing \(bn1.bias\).*--allow-missing"),
        (lambda tree: changed(tree, "conv1.weight", (8, 3, 7, 7)), "of another shape"),
        (
            lambda tree: changed(tree, "projection_head.0.weight", (12, 31)),
            r"do not fit the 32 features of the backbone \(projector.0.weight\)",
        ),
        (lambda tree: changed(tree, "projection_head.3.weight", (6, 11)), "do not fit together"),
        (lambda tree: without(tree, "projection_head.1.running_var"), "are not whole"),
        (lambda tree: changed(tree, "prototypes.prototypes0.weight", (5, 7)), "do not fit"),
    ],
)
def test_what_does_not_fit_leaves_nothing(
    change: Callable[[dict[str, Any]], Any], message: str, folder: Path
) -> None:
    tree, _ = official(Theirs())
    with pytest.raises(ValueError, match=message):
        made(change(tree))
    assert [path.name for path in folder.iterdir()] == ["weights.pth"]


def test_a_truncated_file_leaves_nothing(folder: Path) -> None:
    tree, _ = official(Theirs())
    torch.save(tree, "weights.pth")
    content = Path("weights.pth").read_bytes()
    Path("weights.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="Download it again"):
        swav.import_weights("weights.pth", out="run", backbone=RESNET)
    assert [path.name for path in folder.iterdir()] == ["weights.pth"]


def test_an_interrupted_import_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    tree, _ = official(Theirs())
    monkeypatch.setattr(imported, "save_timm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tree)
    assert [path.name for path in folder.iterdir()] == ["weights.pth"]


def test_missing_tensors_may_be_allowed() -> None:
    tree, _ = official(Theirs())
    run = made(without(tree, "bn1.bias"), allow_missing=True)
    assert "1 missing (bn1.bias)" in json.loads(Path("run/run.json").read_text())["matching"]
    assert torch.equal(run.backbone.state_dict()["bn1.bias"], torch.zeros(64))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("weights.pth", cli.USAGE, "name it with --out"),
        ("nowhere.pth --out run", cli.USAGE, "nowhere.pth is no file that is there"),
        ("weights.pth --out full", cli.FAILURE, "full is not empty"),
        ("weights.pth --out weights.pth", cli.FAILURE, "weights.pth is no folder"),
        ("weights.pth --out run", cli.FAILURE, "does not tell which network it is of"),
        ("vit_b_16-c867db91.pth --out run", cli.FAILURE, "is of torchvision's vit_b_16"),
        ("weights.pth --out run --method byol", cli.FAILURE, "does not tell which network"),
        ("weights.pth --out run --backbone resnet18 --method byol", cli.USAGE, "needs more than"),
        ("weights.pth --out run --backbone resnet18 --method swap", cli.USAGE, "mean 'swav'"),
        ("weights.pth --out run --backbone resnet18", cli.FAILURE, "does not fit the network"),
        ("weights.pth --out run --backbone.args.depth 3", cli.USAGE, "--backbone names"),
        ("plain.pth --out run --backbone resnet18 --method swav", cli.USAGE, "the file has none"),
        ("lite0 --out run --backbone resnet18", cli.USAGE, "leave out --backbone"),
        ("full --out run", cli.USAGE, "full is a run folder already"),
    ],
)
def test_a_mistake_is_one_line(
    words: str, code: int, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = Theirs()
    torch.save(official(theirs)[0], "weights.pth")
    torch.save(theirs.backbone, "plain.pth")
    torch.save({"encoder_norm": torch.zeros(3)}, "vit_b_16-c867db91.pth")
    (folder / "full").mkdir()
    (folder / "full/config.yaml").touch()
    before = sorted(folder.iterdir())
    assert cli.main(["import", *words.split()]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out
    assert sorted(folder.iterdir()) == before


def test_a_dry_run_says_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(official(Theirs())[0], "weights.pth")
    assert cli.main(["import", "weights.pth", *RESNET_WORDS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for words in ("layout swav", "tensors matched", "5 + 4 prototypes, as of DeepCluster-v2"):
        assert words in said
    assert [path.name for path in folder.iterdir()] == ["weights.pth"]


def test_as_many_prototypes_as_published_can_be_trained_on() -> None:
    theirs = Theirs()
    tree, _ = official_one_head(theirs)
    tree["state_dict"]["module.prototypes.weight"] = torch.randn(3000, 6)
    torch.save(tree, "weights.pth")
    config = open_import("weights.pth", RESNET).config
    assert config.optim.batch_size * 16 >= 3000


def test_an_imported_folder_is_used_as_a_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, _ = official_one_head(Theirs())
    torch.save(tree, "weights.pth")
    data = write_pictures(folder)
    assert cli.main(["import", "weights.pth", "--out", "run", *RESNET_WORDS]) == 0
    assert capsys.readouterr().out.endswith("run\n")
    assert cli.main(["embed", "run", data, "--to", "features.npz"]) == 0
    assert cli.main(["cluster", "run", data, "--k", "3"]) == 0
    assert cli.main(["cluster", "run", data, "--to", "clusters.csv"]) == 0
    assert cli.main(["evaluate", "run", data, "--tasks", "knn"]) == 0
    start = ["train", data, "--init", "run", "--out", "trained", "--no-evaluate-at-end"]
    start += ["--epochs", "1", "--crops", "2x32", "--optim.batch-size", "16", "--device", "cpu"]
    assert cli.main(start) == 0
    trained = json.loads(Path("trained/run.json").read_text())
    assert (trained["status"], trained["start"]["layout"]) == ("finished", "run")
    assert read_train_config(Path("trained/config.yaml")).backbone == RESNET
    capsys.readouterr()
    for words, message in (
        (["embed", "run", "--to", "features.npz"], "are not known: name pictures"),
        (["cluster", "run"], "are not known: name pictures"),
        (["evaluate", "run"], "no pictures to evaluate on"),
        (["train", "--resume", "--out", "run"], "swav train DATA --init run"),
        (["train", data, "--resume", "--out", "run"], "swav train DATA --init run"),
    ):
        assert cli.main(words) != 0
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="no training in it to continue"):
        swav.train(data, out="run", resume=True)
