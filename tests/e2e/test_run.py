"""``swav train`` from the command line to the files that programs read, and the verbs after it."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from forked import Finished, swav
from PIL import Image
from tiny import NUM_PICTURES, drawn, write_pictures

from swav.recipes.train_config import read_train_config

STEPS = 12
OPTIONS = (
    *("--recipe", "cifar10-cpu", "--crops", "2x20,2x16", "--device", "cpu"),
    *(
        "--backbone",
        "convnext_atto",
        "--backbone.args.patch_size",
        2,
        "--backbone.args.output_stride",
        8,
    ),
    *("--backbone.args.depths", "[1,1,1,1]", "--backbone.args.dims", "[8,8,16,16]"),
    *("--method.num-prototypes", 8, "--method.head.hidden-dim", 16, "--method.head.embed-dim", 8),
    *("--method.head.batchnorm=false", "--method.freeze-steps", 2, "--optim.batch-size", 16),
    *("--workers", 0, "--threads", 1, "--log-every", 1, "--save-every", 5),
)
THREE_EPOCHS = ("--epochs", 3)
LABELLED_TASKS = ("knn", "linear", "clusters")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="module")
def data(folder: Path) -> str:
    return write_pictures(folder)


@pytest.fixture(scope="module")
def trained(folder: Path, data: str) -> Finished:
    return swav("train", data, *OPTIONS, *THREE_EPOCHS, "--out", "run", folder=folder)


@pytest.fixture(scope="module")
def run(folder: Path, trained: Finished) -> Path:
    assert trained.code == 0, trained.stderr
    return folder / "run"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_report_is_what_is_printed(trained: Finished, run: Path) -> None:
    assert trained.stdout == "run/report.html\n"
    assert "step 12/12" in trained.stderr
    page = (run / "report.html").read_text()
    assert "finished" in page
    assert "running" not in page


def test_every_file_is_there(run: Path) -> None:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    state = {"state.safetensors", "meta.json", "MANIFEST.json"}
    assert names == {
        *("report.html", "config.yaml", "run.json", "run.lock", "metrics.jsonl", "train.log"),
        *("model/config.json", "model/model.safetensors", "model/README.md"),
        *(f"checkpoints/step-{step:08d}/{name}" for step in (10, 12) for name in state),
        *("embeddings.npz", "clusters.csv", "clusters.npz", "map.npz", "pictures/views.npz"),
        *(f"eval/{task}.json" for task in (*LABELLED_TASKS, "part_retrieval")),
    }


def test_the_config_is_complete(run: Path, data: str) -> None:
    made = read_train_config(run / "config.yaml")
    assert (made.data.data, made.epochs, made.method.num_prototypes) == (data, 3, (8,))
    assert made.backbone.args["dims"] == [8, 8, 16, 16]
    assert made.method.head.batchnorm is False


def test_the_record_says_what_made_the_run(run: Path) -> None:
    record = read(run / "run.json")
    assert record["status"] == "finished"
    assert record["seconds"] > 0
    assert (record["recipe"], record["method"], record["seed"]) == ("cifar10-cpu", "swav", 0)
    assert (record["num_images"], record["resumes"]) == (NUM_PICTURES, [])
    assert record["command"].startswith("swav train ")
    assert {"swav", "torch", "timm", "numpy", "python"} <= record["versions"].keys()
    assert record["machine"]["threads"] == 1


def test_each_step_has_its_line(run: Path) -> None:
    found = lines(run)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    assert [line["images"] for line in found] == [16 * step for step in range(1, STEPS + 1)]
    for line in found:
        assert {
            *("step", "epoch", "images", "seconds", "loss", "lr", "images_per_second"),
            *("code_entropy", "prototypes_used", "loss_floor", "ln_k"),
        } <= line.keys()
        assert line["ln_k"] == pytest.approx(np.log(8))


@pytest.mark.parametrize("task", [*LABELLED_TASKS, "part_retrieval"])
def test_each_evaluation_has_baselines_and_its_protocol(run: Path, task: str, data: str) -> None:
    result = read(run / "eval" / f"{task}.json")
    assert result["task"] == task
    assert result["protocol"]["fit_on"] == result["protocol"]["score_on"] == data
    keys = {"title", "protocol", "metrics", "about", "intervals", "baselines", "seeds"}
    keys |= {"counts", "versions"}
    assert keys <= result.keys()
    assert result["about"].keys() == result["metrics"].keys()
    patches = set() if task == "part_retrieval" else {"patch-kmeans"}
    assert result["baselines"].keys() == {"random", "pixels"} | patches
    for values in result["baselines"].values():
        own = {"code_entropy", "usage_entropy", "prototypes_used", "duplicate_prototypes"}
        own |= set(result["details"].get("without_baseline", ()))
        assert values.keys() == result["metrics"].keys() - own  # which only the method has
    expected = {
        "knn": {"top1_k5", "top1_k10", "top1_k20"},
        "linear": {"top1"},
        "clusters": {"nmi", "ari", "accuracy"},
        "part_retrieval": {"recall_at_1"},
    }
    assert expected[task] <= result["metrics"].keys()


def test_embeddings_are_in_the_order_of_the_data(run: Path) -> None:
    with np.load(run / "embeddings.npz") as arrays:
        assert arrays["embeddings"].shape == (NUM_PICTURES, 16)
        assert arrays["paths"].tolist() == [f"{place:06d}" for place in range(NUM_PICTURES)]
        assert arrays["labels"].tolist() == drawn()[1].tolist()


def test_clusters_name_every_picture(run: Path) -> None:
    with (run / "clusters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{place:06d}" for place in range(NUM_PICTURES)]
    with np.load(run / "clusters.npz") as arrays:
        clusters, probabilities = arrays["clusters"], arrays["probabilities"]
    assert clusters.shape == probabilities.shape == (NUM_PICTURES, 8)
    assert [int(row["cluster"]) for row in rows] == clusters[:, 0].tolist()
    assert (np.diff(probabilities.astype(float), axis=1) <= 0).all()
    assert all(sorted(row) == list(range(8)) for row in clusters.tolist())
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_plain_timm_opens_the_model_and_gives_the_embeddings(run: Path) -> None:
    """The transform is that of timm of the model, on pictures that only Pillow has touched."""
    model = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True, num_classes=0).eval()
    settings = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**settings, is_training=False)
    pictures = torch.stack([transform(Image.fromarray(pixels)) for pixels in drawn()[0]])
    with torch.no_grad(), np.load(run / "embeddings.npz") as arrays:
        np.testing.assert_allclose(model(pictures).numpy(), arrays["embeddings"], atol=1e-5)


def test_evaluate_prints_json_and_agrees_with_the_end_of_the_training(
    run: Path, copy: Path
) -> None:
    made = swav("evaluate", copy, "--tasks", "knn,clusters", "--json", folder=copy)
    assert made.code == 0, made.stderr
    results = json.loads(made.stdout)
    assert [result["task"] for result in results] == ["knn", "clusters"]
    for result in results:
        before = read(run / "eval" / f"{result['task']}.json")
        assert result == before == read(copy / "eval" / f"{result['task']}.json")


def test_runs_and_baselines_stand_in_one_table_with_the_options_of_a_task(
    run: Path, copy: Path, data: str
) -> None:
    words = ("--tasks", "knn,layers", "--knn.k", 3, "--layers.probe.penalties", 0.1)
    made = swav("evaluate", copy, "pixels", data, *words, folder=copy)
    assert made.code == 0, made.stderr
    assert "stage4" in made.stdout
    assert "top1_k3" in made.stdout
    assert "top1_k5" not in made.stdout
    assert read(copy / "eval/layers.json")["metrics"].keys() == {
        *(f"stage{place}" for place in range(1, 5)),
        "top1",
    }
    assert (copy / "eval/layers.svg").exists()
    kept = list((copy / "features").iterdir())
    assert len(kept) == 4  # output and stages, of the network and of the untrained one
    wrong = swav("evaluate", copy, "--tasks", "knn", "--layers.max-features", 9, folder=copy)
    assert wrong.code == 2
    assert "add layers to --tasks" in wrong.stderr


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_embed_writes_what_the_training_wrote(
    run: Path, data: str, suffix: str, tmp_path: Path
) -> None:
    target = tmp_path / f"features{suffix}"
    assert swav("embed", run, data, "--to", target, folder=tmp_path).code == 0
    with np.load(run / "embeddings.npz") as arrays:
        embeddings, paths = arrays["embeddings"], arrays["paths"].tolist()
    if suffix == ".npz":
        with np.load(target) as arrays:
            assert np.array_equal(arrays["embeddings"], embeddings)
            assert arrays["paths"].tolist() == paths
    else:
        rows = list(csv.reader(target.read_text().splitlines()))[1:]
        assert [row[0] for row in rows] == paths
        assert np.array_equal(np.array([row[1:] for row in rows], dtype=np.float32), embeddings)


def test_cluster_writes_what_the_training_wrote(run: Path, data: str, tmp_path: Path) -> None:
    target = tmp_path / "own.csv"
    assert swav("cluster", run, data, "--to", target, folder=tmp_path).code == 0
    assert target.read_text() == (run / "clusters.csv").read_text()


def test_a_picture_has_the_same_cluster_in_any_company(run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", pictures=drawn()[0][:3])
    assert swav("cluster", run, "few.npz", "--to", "own.csv", folder=tmp_path).code == 0
    few, all_of_them = (tmp_path / "own.csv").read_text(), (run / "clusters.csv").read_text()
    clusters = [[line.split(",")[:2] for line in text.splitlines()] for text in (few, all_of_them)]
    assert clusters[0] == clusters[1][:4]


@pytest.mark.parametrize(
    ("what", "name"),
    [("methods", "swav"), ("recipes", "auto"), ("tasks", "knn"), ("backbones", "resnet50w2")],
)
def test_list_names_what_there_is(what: str, name: str, tmp_path: Path) -> None:
    made = swav("list", what, "--json", folder=tmp_path)
    assert made.code == 0
    found = json.loads(made.stdout)
    assert all(entry.keys() == {"name", "summary"} for entry in found)
    assert name in [entry["name"] for entry in found]


def test_a_dry_run_plans_and_writes_nothing(data: str, tmp_path: Path) -> None:
    made = swav(
        "train", data, *OPTIONS, *THREE_EPOCHS, "--out", "new", "--dry-run", folder=tmp_path
    )
    assert made.code == 0, made.stderr
    assert "3 epochs of 4 steps = 12 steps of 16 pictures, 4 views each" in made.stdout
    assert "time on this machine" in made.stdout
    assert "memory for training" in made.stdout
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "swav-r50-200ep-bs256", "--device", "cpu"), "32-true) and sync_batchnorm"),
        ((*OPTIONS, "--precision", "16-mixed"), "use --precision bf16-mixed or 32-true"),
        ((*OPTIONS, "--sync-batchnorm"), "use --no-sync-batchnorm"),
        (("--recipe", "cifar10-cpu", "--device", "tpu"), "device 'tpu' is not here: use cpu"),
    ],
)
def test_what_a_run_refuses_its_plan_refuses_alike(
    options: tuple[str, ...], message: str, data: str, tmp_path: Path
) -> None:
    ended = [
        swav("train", data, *options, "--out", "new", *more, folder=tmp_path)
        for more in ((), ("--dry-run",))
    ]
    assert [run.code for run in ended] == [2, 2]
    assert ended[0].stderr == ended[1].stderr
    assert message in ended[0].stderr
    assert not (tmp_path / "new").exists()


def test_a_run_in_mixed_precision(data: str, tmp_path: Path) -> None:
    options = (*OPTIONS, "--epochs", 1, "--precision", "bf16-mixed", "--evaluate-at-end=false")
    made = swav("train", data, *options, "--out", "run", folder=tmp_path)
    assert made.code == 0, made.stderr
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4]
    embeddings = np.load(tmp_path / "run" / "embeddings.npz")["embeddings"]
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()


def test_a_finished_run_makes_only_what_is_missing(copy: Path, data: str) -> None:
    def times() -> dict[str, int]:
        files = [path for path in copy.rglob("*") if path.is_file()]
        return {str(path.relative_to(copy)): path.stat().st_mtime_ns for path in files}

    again: Callable[[], Finished] = lambda: swav(  # noqa: E731
        "train", "--resume", "--out", copy, folder=copy.parent
    )
    before = times()
    done = again()
    assert (done.code, done.stdout) == (0, f"{copy}/report.html\n"), done.stderr
    unchanged = {"run.lock", "train.log"}
    assert {name for name, time in times().items() if before[name] != time} <= unchanged

    (copy / "eval" / "knn.json").unlink()
    shutil.rmtree(copy / "model")
    assert again().code == 0
    after = times()
    assert after.keys() == before.keys()
    made = {name for name, time in after.items() if before[name] != time}
    assert made - unchanged == {
        *("eval/knn.json", "report.html"),
        *("model/config.json", "model/model.safetensors", "model/README.md"),
    }
    assert read(copy / "run.json")["resumes"] == []


def test_a_folder_with_a_run_is_not_trained_into(copy: Path, data: str) -> None:
    before = (copy / "train.log").read_text()
    made = swav("train", data, *OPTIONS, *THREE_EPOCHS, "--out", copy, folder=copy.parent)
    assert made.code == 1
    assert "already holds a run" in made.stderr
    assert "--resume" in made.stderr
    assert (copy / "train.log").read_text() == before


def test_a_changed_setting_is_named(copy: Path, data: str) -> None:
    words = ("--resume", "--out", copy, "--method.epsilon", "0.07", "--optim.batch-size", 32)
    made = swav("train", data, *words, folder=copy.parent)
    assert made.code == 1
    assert "method.epsilon was 0.025, now 0.07" in made.stderr
    assert "optim.batch_size was 16, now 32" in made.stderr


def test_other_pictures_are_refused(copy: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "fewer.npz", pictures=drawn()[0][:40])
    made = swav("train", "fewer.npz", "--resume", "--out", copy, folder=tmp_path)
    assert made.code == 1
    assert "learns from 64 pictures, fewer.npz now has 40" in made.stderr


def test_without_a_checkpoint_that_can_be_read_nothing_starts(copy: Path, data: str) -> None:
    states = sorted(copy.glob("checkpoints/step-*/state.safetensors"))
    for state in states:
        state.write_bytes(state.read_bytes()[:100])
    made = swav("train", data, "--resume", "--out", copy, folder=copy.parent)
    assert made.code == 1
    for state in states:
        assert state.parent.name in made.stderr
    assert "Restore one from a backup" in made.stderr


def test_data_in_parts_are_scored_on_the_other_part(tmp_path: Path) -> None:
    (train, labels), (test, test_labels) = drawn(48), drawn(20, seed=1)
    np.savez(
        tmp_path / "parts.npz",
        **{"train_images": train, "train_labels": labels},
        **{"test_images": test, "test_labels": test_labels},
    )
    words = (*OPTIONS, "--epochs", 1, "--out", "run")
    made = swav("train", "parts.npz", *words, folder=tmp_path)
    assert made.code == 0, made.stderr
    at_the_end = {path.stem: read(path) for path in (tmp_path / "run" / "eval").glob("*.json")}
    for task in LABELLED_TASKS:
        assert at_the_end[task]["protocol"]["fit_on"] == "parts.npz (train)"
        assert at_the_end[task]["protocol"]["score_on"] == "parts.npz (test)"
        assert at_the_end[task]["counts"]["score"] == 20
    again = swav("evaluate", "run", "--tasks", "knn,linear", "--json", folder=tmp_path)
    assert json.loads(again.stdout) == [at_the_end["knn"], at_the_end["linear"]]


def test_a_run_that_is_scored_later_keeps_all_but_the_scores(run: Path, tmp_path: Path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    shutil.copytree(run, late)
    shutil.rmtree(late / "eval")
    (late / "report.html").unlink()
    resume = ("train", "--resume", "--out", late)
    assert swav(*resume, "--evaluate-at-end=false", folder=tmp_path).code == 0
    assert not (late / "eval").exists()
    assert (late / "report.html").exists()
    shutil.copytree(late, early)
    done = swav("evaluate", late, "--tasks", "knn", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert read(late / "eval/knn.json")["metrics"] == read(run / "eval/knn.json")["metrics"]
    assert swav("train", "--resume", "--out", early, folder=tmp_path).code == 0
    assert read(early / "eval/knn.json")["metrics"] == read(run / "eval/knn.json")["metrics"]


def test_weights_of_another_run_are_the_start(run: Path, data: str, tmp_path: Path) -> None:
    settings = run / "config.yaml"
    words = ("train", data, "--config", settings, "--epochs", 1, "--init", run)
    made = swav(*words, "--optim.learning-rate", "1e-9", "--out", "new", folder=tmp_path)
    assert made.code == 0, made.stderr
    with np.load(run / "embeddings.npz") as old, np.load(tmp_path / "new/embeddings.npz") as new:
        np.testing.assert_allclose(new["embeddings"], old["embeddings"], atol=1e-3)
    other = swav(*words, "--backbone", "resnet10t", "--out", "other", folder=tmp_path)
    assert other.code == 1
    assert "holds convnext_atto (" in other.stderr
    assert "this run has resnet10t" in other.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.ranks
def test_two_ranks_lose_as_one(run: Path, data: str, tmp_path: Path) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "swav")
    words = ("train", data, *OPTIONS, *THREE_EPOCHS, "--out", tmp_path / "two")
    made = subprocess.run(
        [sys.executable, "-m", *launcher, *(str(word) for word in words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"{tmp_path}/two/report.html\n"
    one, two = lines(run), lines(tmp_path / "two")
    np.testing.assert_allclose(
        [line["loss"] for line in two], [line["loss"] for line in one], atol=1e-5, rtol=0
    )
    assert read(tmp_path / "two" / "run.json")["machine"]["ranks"] == 2
