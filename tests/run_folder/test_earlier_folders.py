"""Run folders that commit 37f42e8 wrote open with every command; reading changes nothing in them.

``kept/finished`` is a run of SwAV, ``kept/stopped`` one of Barlow Twins that SIGTERM ended after
step 6 of 12; both learned from ``tiny.write_pictures``. The report was left out.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write_pictures

import swav
from swav import cli
from swav.config import read_yaml
from swav.methods import BarlowConfig, SwAVConfig
from swav.recipes.train_config import read_train_config
from swav.run_folder.migrations import SCHEMA
from swav.run_folder.readers import read_evaluations

KEPT = Path(__file__).with_name("kept")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders beside their pictures, where commands are run."""
    for name in ("finished", "stopped"):
        shutil.copytree(KEPT / name, tmp_path / name)
    write_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(run: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(Path(run).rglob("*")) if path.is_file()}


def record(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run) / "run.json").read_text())
    return found


def settings(run: str) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml((Path(run) / "config.yaml").read_text())
    return found


def test_the_kept_folders_are_of_the_first_schema() -> None:
    for run in ("finished", "stopped"):
        assert "schema" not in settings(run)
        assert "schema" not in record(run)


def test_a_run_is_loaded_and_embeds_as_it_did() -> None:
    before = contents("finished")
    run = swav.load("finished")
    assert isinstance(run.config.method, SwAVConfig)
    assert run.config.method.prior.exponent == 0.3
    features = run.features(run.pictures())
    with np.load("finished/embeddings.npz") as kept:
        np.testing.assert_allclose(features.values.numpy(), kept["embeddings"], atol=1e-5)
        assert features.names == kept["paths"].tolist()
    assert contents("finished") == before


def test_a_stopped_run_is_loaded() -> None:
    config = swav.load("stopped").config
    assert isinstance(config.method, BarlowConfig)
    assert (config.method.head.num_hidden, config.method.batchnorm_per_view) == (2, False)


@pytest.mark.parametrize(
    "words",
    [
        ("embed", "finished", "drawn.npz", "--to", "again.npz"),
        ("cluster", "finished", "--to", "again.csv"),
        ("train", "--config", "finished/config.yaml", "--dry-run"),
        (
            *("train", "--config", "finished/config.yaml", "--epochs", "1", "--out", "new"),
            *("--init", "finished", "--no-evaluate-at-end"),
        ),
    ],
    ids=["embed", "cluster", "dry-run", "init"],
)
def test_commands_that_only_read_change_nothing(words: tuple[str, ...]) -> None:
    before = contents("finished")
    assert cli.main([*words]) == 0
    assert contents("finished") == before


def test_a_config_file_needs_no_run_beside_it() -> None:
    shutil.copy("stopped/config.yaml", "mine.yaml")
    assert read_train_config(Path("mine.yaml")) == read_train_config(Path("stopped/config.yaml"))
    assert cli.main(["train", "--config", "mine.yaml", "--dry-run"]) == 0


def test_clusters_are_those_of_then() -> None:
    assert cli.main(["cluster", "finished", "--to", "again.csv"]) == 0
    kept, again = (
        [line.split(",")[:2] for line in Path(path).read_text().splitlines()]
        for path in ("finished/clusters.csv", "again.csv")
    )
    assert again == kept


def test_results_are_read_under_the_present_names() -> None:
    evaluations, unreadable = read_evaluations(Path("finished"))
    tasks = [evaluation.task for evaluation in evaluations]
    assert tasks == ["clusters", "knn", "linear", "part_retrieval"]
    assert not unreadable
    assert Path("finished/eval/parts.json").exists()


def test_a_later_result_stands_for_that_of_the_former_name() -> None:
    words = ("evaluate", "finished", "--tasks", "part_retrieval", "--json")
    assert cli.main([*words]) == 0
    assert Path("finished/eval/part_retrieval.json").exists()
    assert Path("finished/eval/parts.json").exists()
    evaluations, _ = read_evaluations(Path("finished"))
    (only,) = [each for each in evaluations if each.task == "part_retrieval"]
    assert only.title == "Retrieval from a part"


def test_the_report_is_made() -> None:
    swav.write_report(Path("finished"))
    assert "recall_at_1" in Path("finished/report.html").read_text()
    assert "schema" not in settings("finished")


def test_resume_of_a_finished_run_makes_what_is_missing_in_the_present_form() -> None:
    weights = Path("finished/model/model.safetensors")
    embeddings = Path("finished/embeddings.npz").read_bytes()
    exported = weights.read_bytes()
    shutil.rmtree("finished/model")
    assert cli.main(["train", "--resume", "--out", "finished"]) == 0
    assert weights.read_bytes() == exported
    assert Path("finished/embeddings.npz").read_bytes() == embeddings
    assert Path("finished/report.html").exists()
    assert (record("finished")["schema"], record("finished")["status"]) == (SCHEMA, "finished")
    assert next(iter(settings("finished"))) == "schema"
    assert settings("finished")["views"]["pipeline"] == "fused"
    assert not Path("finished/eval/parts.json").exists()
    result = json.loads(Path("finished/eval/part_retrieval.json").read_text())
    kept = json.loads((KEPT / "finished/eval/parts.json").read_text())
    assert result == {**kept, "task": "part_retrieval"}


def test_resume_of_a_stopped_run_goes_on_in_the_present_form() -> None:
    before = Path("stopped/metrics.jsonl").read_text().splitlines()
    assert cli.main(["train", "--resume", "--out", "stopped"]) == 0
    lines = Path("stopped/metrics.jsonl").read_text().splitlines()
    assert lines[: len(before)] == before
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
    assert (record("stopped")["schema"], record("stopped")["status"]) == (SCHEMA, "finished")
    assert [resume["step"] for resume in record("stopped")["resumes"]] == [6]
    assert settings("stopped")["schema"] == SCHEMA
    assert settings("stopped")["method"]["head"]["bias"] is False


def test_an_unknown_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("stopped/config.yaml")
    path.write_text(path.read_text().replace("redundancy_weight", "redundancy_wait"))
    assert cli.main(["train", "--config", str(path), "--dry-run"]) != 0
    message = " ".join(capsys.readouterr().err.split())
    assert "unknown key 'redundancy_wait'. Did you mean 'redundancy_weight'?" in message
