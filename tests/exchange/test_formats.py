"""Networks in the formats of others: the code of the README.md gives what was trained."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import WITH_BATCHNORM

from swav.data.eval_transform import EvalTransform
from swav.exchange import exported, formats
from swav.exchange.clusterer import Clustering, clusterer_of, read_clusterer
from swav.exchange.exported import TrainedModel
from swav.exchange.formats import FORMATS, check_target, export_to
from swav.exchange.to_torch_export import TorchExport
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import HeadConfig
from swav.nn.prototypes import ClusterHead, Prototypes

CIFAR = BackboneConfig(name="cifar_resnet18")
RESNET = BackboneConfig(name="resnet18", args={"zero_init_last": False})
TRANSFORMER = BackboneConfig(
    name="vit_tiny_patch16_224", args={"patch_size": 8, "embed_dim": 48, "depth": 2}
)
CASES = [
    ("torchvision", RESNET),
    *(
        (name, config)
        for name in FORMATS
        for config in (CIFAR, TRANSFORMER)
        if name != "torchvision"
    ),
]
PACKAGES = {"hf": ("transformers",), "onnx": ("onnx", "onnxscript", "onnxruntime")}


def trained(
    config: BackboneConfig, channels: int = 3, size: int = 16, head: HeadConfig | None = None
) -> TrainedModel:
    """Return a network, and clusters, whose BatchNorms have statistics."""
    torch.manual_seed(0)
    backbone = config.build(channels)
    features = backbone(torch.randn(8, channels, size, size))
    if head is None:
        head = HeadConfig(hidden_dim=12, embed_dim=6, num_hidden=2)
    projector = head.build(features.shape[1])
    projector(3 * features.detach() + 1)
    cluster_head = ClusterHead(projector.eval(), Prototypes(head.embed_dim, (5, 4)), 0.1)
    mean, std = (0.4,) * channels, (0.3,) * channels
    return TrainedModel(
        backbone=backbone.eval(),
        config=config,
        transform=EvalTransform(input_size=(channels, size, size), mean=mean, std=std),
        cluster_head=cluster_head,
        clusterings={
            "prototypes": Clustering([0, 1, 2, 3, 4], {1: "cats"}),
            "k=2": Clustering([1, 0], {}, torch.eye(2, head.embed_dim)),
        },
    )


def drawn(channels: int = 3, number: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = [(40, 40), (33, 50), (20, 16)][:number]
    shapes = [(channels, *size) for size in sizes]
    return [torch.randint(0, 256, s, generator=generator, dtype=torch.uint8) for s in shapes]


def written(name: str, model: TrainedModel, folder: Path) -> formats.Difference:
    readme = FORMATS[name].usage(model)
    pictures = drawn(model.transform.input_size[0])
    return export_to(name, model, folder, readme=readme, pictures=pictures)


def run_readme(folder: Path, picture: torch.Tensor) -> dict[str, Any]:
    """Run the code of the README.md in its folder, for a picture."""
    array = picture.permute(1, 2, 0).numpy()
    # its ending is that of the code, and Pillow reads what it is
    Image.fromarray(array.squeeze(2) if len(picture) == 1 else array).save(
        folder / "picture.jpg", format="PNG"
    )
    variables: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec((folder / "README.md").read_text(), variables)
    finally:
        os.chdir(before)
    return variables


@pytest.mark.parametrize(("name", "config"), CASES)
def test_the_code_of_the_readme_gives_features_and_clusters(
    name: str, config: BackboneConfig, tmp_path: Path
) -> None:
    for package in PACKAGES.get(name, ()):
        pytest.importorskip(package, reason=f"pip install 'swav[{name}]'")
    channels = 1 if config is TRANSFORMER else 3
    model = trained(config, channels)
    difference = written(name, model, tmp_path / "out")
    assert difference.relative < formats.TOLERANCE
    picture = drawn(channels)[0]
    variables = run_readme(tmp_path / "out", picture)
    with torch.no_grad():
        features = model.backbone(model.transform([picture]))
        assert model.cluster_head is not None
        probabilities = model.cluster_head.probabilities(features)
    for key, expected in (("features", features), ("probabilities", probabilities)):
        found = torch.as_tensor(variables[key]).detach()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    is_named = "import swav.nn" in (tmp_path / "out/README.md").read_text()
    assert is_named == (config is CIFAR and name in ("timm", "hf"))


@pytest.mark.parametrize("name", ["timm", "torch-export"])
def test_more_channels_than_a_picture_file_holds(name: str, tmp_path: Path) -> None:
    assert written(name, trained(WITH_BATCHNORM, 5, 32), tmp_path / "out").relative < 1e-5


@pytest.mark.parametrize(
    "head",
    [
        HeadConfig(hidden_dim=0, embed_dim=6, bias=False),
        HeadConfig(hidden_dim=12, embed_dim=6, batchnorm=False),
        HeadConfig(hidden_dim=12, embed_dim=6, num_hidden=3, bias=False),
    ],
)
def test_clusters_of_any_head_as_plain_layers(head: HeadConfig, tmp_path: Path) -> None:
    model = trained(WITH_BATCHNORM, size=32, head=head)
    written("timm", model, tmp_path / "out")
    assert model.cluster_head is not None
    features = torch.randn(7, 16)
    expected = model.cluster_head.probabilities(features)
    opened = read_clusterer(tmp_path / "out")
    assert opened is not None
    for clusterer in (opened, clusterer_of(model.cluster_head)):
        torch.testing.assert_close(clusterer(features).detach(), expected, rtol=1e-5, atol=1e-6)
    settings = json.loads((tmp_path / "out/clusters.json").read_text())
    assert settings["clusterings"]["prototypes"]["names"] == {"1": "cats"}


def test_other_features_are_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(WITH_BATCHNORM, size=32)
    write: Callable[..., None] = TorchExport.write

    def with_error(self: TorchExport, model: TrainedModel, folder: Path) -> None:
        write(self, model, folder)
        with torch.no_grad():
            next(model.backbone.parameters())[0] *= 1.001

    monkeypatch.setattr(TorchExport, "write", with_error)
    with pytest.raises(ValueError, match=r"torch-export does not give the features.*Nothing was"):
        written("torch-export", model, tmp_path / "export" / "torch-export")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    check_target(tmp_path / "new")
    check_target(tmp_path)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match="holds other things"):
        check_target(tmp_path)
    written("timm", trained(WITH_BATCHNORM, size=32), tmp_path / "timm")
    check_target(tmp_path / "timm")


def test_networks_that_a_format_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = replace(RESNET, args={"layers": [1, 1, 1, 1]})
    for model in (trained(CIFAR), trained(RESNET, 1), trained(deeper)):
        with pytest.raises(ValueError, match=r"no network of torchvision.*resnet18, resnet34"):
            FORMATS["torchvision"].check(model)
    model = trained(WITH_BATCHNORM, size=32)
    factory = replace(model, config=BackboneConfig(name="mine:network"))
    with pytest.raises(ValueError, match="not a timm name"):
        FORMATS["timm"].check(factory)
    FORMATS["torch-export"].check(factory)
    monkeypatch.setattr(exported, "find_spec", lambda _: None)
    for name, packages in PACKAGES.items():
        with pytest.raises(ValueError, match=rf"{packages[0]}.*pip install 'swav\[{name}\]'"):
            FORMATS[name].check(model)


def test_onnx_needs_no_torch_and_takes_batches_of_any_size(tmp_path: Path) -> None:
    for package in PACKAGES["onnx"]:
        pytest.importorskip(package, reason="pip install 'swav[onnx]'")
    import onnxruntime

    model = trained(WITH_BATCHNORM, size=32)
    written("onnx", model, tmp_path / "out")
    assert "torch" not in (tmp_path / "out/README.md").read_text()
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    for number in (1, 2, 7):
        pictures = np.random.default_rng(0).normal(size=(number, 3, 32, 32)).astype(np.float32)
        (features,) = session.run(None, {"pictures": pictures})
        with torch.no_grad():
            expected = model.backbone(torch.from_numpy(pictures)).numpy()
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
