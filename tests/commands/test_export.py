"""``swav export``: a run of the digits, in other formats, with its clusters and its card."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY_METHODS, WITH_BATCHNORM, tiny_config

import swav
from swav import cli
from swav.exchange.clusterer import USAGE
from swav.exchange.formats import TOLERANCE
from swav.methods import SimCLRConfig, SwAVConfig

FORMATS = "timm,torch-export"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of SwAV and one of SimCLR."""
    folder = tmp_path_factory.mktemp("export")
    for name, method in (("run", SwAVConfig), ("simclr", SimCLRConfig)):
        made = tiny_config("digits", epochs=1, evaluate_at_end=False, backbone=WITH_BATCHNORM)
        made = replace(made, method=TINY_METHODS[method])
        made = replace(made, optim=replace(made.optim, batch_size=256))
        swav.train("digits", config=made, out=folder / name)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to be changed, where commands are run."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_run_with_its_clusters_and_their_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swav.load("run").cluster(k=4)
    (folder / "run/names.csv").write_text(
        "clustering,cluster,name\nk=4,0,loops\nprototypes,2,ones\n"
    )
    assert cli.main(["export", "run", "--to", FORMATS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[-2:]] == FORMATS.split(",")
    assert all("on 50 pictures and on one alone" in line for line in lines[-2:])
    for name in FORMATS.split(","):
        clusters = json.loads((folder / "run/export" / name / "clusters.json").read_text())
        by_name = clusters["clusterings"]
        assert by_name["prototypes"]["clusters"] == [*range(12)]
        assert by_name["prototypes"]["names"] == {"2": "ones"}
        assert sorted(by_name["k=4"]["clusters"]) == [0, 1, 2, 3]
        assert by_name["k=4"]["names"] == {"0": "loops"}
        assert "1,797 pictures" in (folder / "run/export" / name / "README.md").read_text()


def test_the_exported_code_gives_the_clusters_on_demand(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = swav.load("run")
    run.cluster(k=4, to="four.csv")
    swav.export("run", to="timm", out=folder / "out")
    monkeypatch.chdir(folder / "out/timm")
    variables = {"features": run.features(run.pictures()).values}
    exec(USAGE.replace('["clusterings"]["prototypes"]', '["clusterings"]["k=4"]'), variables)
    probabilities = variables["probabilities"].detach().numpy()
    with np.load(folder / "four.npz") as written:
        numbers = np.array(variables["clustering"]["clusters"])[probabilities.argmax(axis=1)]
        assert (written["clusters"][:, 0] == numbers).all()
        best = np.sort(probabilities, axis=1)[:, ::-1]
        np.testing.assert_allclose(written["probabilities"], best, atol=1e-3)


def test_from_python_of_a_method_without_clusters(folder: Path) -> None:
    (exported,) = swav.export("simclr", to="timm", out=folder / "out")
    assert exported.folder == folder / "out/timm"
    assert (exported.pictures, exported.format) == (50, "timm")
    assert exported.relative <= TOLERANCE
    names = {path.name for path in exported.folder.iterdir()}
    assert names == {"README.md", "config.json", "export.json", "model.safetensors"}
    assert not (folder / "simclr/export").exists()


def test_pictures_to_compare_on_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "run", "emoji", "--to", "timm", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["folder"] == "run/export/timm"


@pytest.mark.parametrize(
    ("formats", "message", "code"),
    [
        ("timm,onx", "unknown format 'onx'. Did you mean 'onnx'? Valid: timm, torchvision", 2),
        (",", "name a format to export to: timm", 2),
        ("timm,torchvision", "is no network of torchvision", 1),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], formats: str, message: str, code: int
) -> None:
    assert cli.main(["export", "run", "--to", formats]) == code
    assert message in capsys.readouterr().err
    assert not (folder / "run/export").exists()


def test_the_card_of_the_model_is_filled(folder: Path) -> None:
    result = {
        "task": "knn",
        "title": "Nearest neighbours",
        "protocol": {},
        "metrics": {"top1_k10": 0.5},
        "about": {"top1_k10": {"title": "top-1 | k = 10", "is_share": True}},
        "intervals": {"top1_k10": [0.4, 0.6]},
        "baselines": {"random": {"top1_k10": 0.3}},
    }
    (folder / "run/eval").mkdir(exist_ok=True)
    (folder / "run/eval/knn.json").write_text(json.dumps(result))
    swav.export("run", to="timm")
    trained, exported = (
        (folder / name).read_text() for name in ("run/model/README.md", "run/export/timm/README.md")
    )
    for card in (trained, exported):
        assert "{" not in card.replace("resolve_data_config({}", "").partition("import json")[0]
        for text in ("- 1,797 pictures", "8 x 8 pixels", "10 classes", "1 epoch", "(1, 16)"):
            assert text in card
        assert "from random weights" in card
    assert "## Scores" not in trained
    row = next(line for line in exported.splitlines() if line.startswith("| Nearest"))
    assert row.replace("\u00a0", " ") == (
        "| Nearest neighbours | top-1 \\| k = 10 | 50.0 % | 40.0 % to 60.0 % | "
        "the untrained network 30.0 % |"
    )
