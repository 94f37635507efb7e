"""A run whose training made its start worse: its model is the start, with clusters."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from forked import on_ranks
from tiny import TINY_METHODS, WITH_BATCHNORM, tiny_config, write_pictures

import swav
from swav.evals.label_free import Measures
from swav.methods import (
    BYOLConfig,
    DeepClusterConfig,
    MethodConfig,
    MoCoConfig,
    SeLaConfig,
    SimCLRConfig,
    SwAVConfig,
)
from swav.recipes import head_training
from swav.run_folder import layout
from swav.run_folder.readers import read_embeddings
from swav.run_folder.record import read_record
from swav.training import guard, handed_out
from swav.training.networks import build_objective
from swav.training.trained_run import load

MEASURES = Measures(effective_rank=9.0, agreement=0.5, stability=0.6, part_retrieval=0.3)
WORSE = replace(MEASURES, agreement=0.1)
REASON = "The trained network is worse than the weights it started from, told without labels"
STATEMENT = "The model of this run is the network that it started from"


def lost(*_: Any, start_is_trained: bool, **__: Any) -> guard.Verdict:
    """Return the verdict on a network that lost."""
    winner, reason = guard.decide(MEASURES, WORSE, start_is_trained=start_is_trained)
    return guard.Verdict(
        winner=winner, reason=reason, start=MEASURES, trained=WORSE, overlap=0.9, num_images=64
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are made, whose training is worse than their start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guard, "compare", lost)
    monkeypatch.setattr(head_training, "HEAD_STEPS", 8)
    return tmp_path


def train(out: str, **changes: Any) -> Path:
    """Train one epoch on drawn pictures."""
    data = write_pictures(Path())
    made = tiny_config(data, **({"epochs": 1, "evaluate_at_end": False} | changes))
    return swav.train(data, config=made, out=out).folder


def continued(**changes: Any) -> Path:
    """Continue the second run."""
    data, config = "drawn.npz", swav.load("second").config
    return swav.train(
        data, config=replace(config, input=None, **changes), out="second", resume=True
    ).folder


def weights(run: str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Path(run, layout.MODEL, "model.safetensors"))


def is_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def modified(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", [SwAVConfig, DeepClusterConfig, SeLaConfig])
def test_the_model_is_the_start_with_clusters_trained_on_it(method: type[MethodConfig]) -> None:
    train("first", backbone=WITH_BATCHNORM)
    settings = TINY_METHODS[method]
    folder = train("second", init="first", method=settings, backbone=WITH_BATCHNORM)
    start, run = load("first"), load("second")
    assert run.is_start
    assert is_same(run.backbone.state_dict(), start.backbone.state_dict())
    assert is_same(weights("second"), weights("first"))
    kept = read_embeddings(folder).values
    np.testing.assert_allclose(kept, start.embed().values.numpy(), atol=1e-5)
    record = read_record(folder)["guard"]
    assert (record["winner"], record["handed_out"]) == ("start", "start")

    fresh = build_objective(run.config, num_images=64).state_dict()
    now = run.objective.state_dict()
    learnt = [name for name in now if name.startswith(("projector", "prototypes"))]
    assert learnt
    assert not any(torch.equal(now[name], fresh[name]) for name in learnt if "weight" in name)
    run.cluster(to="again.csv")
    assert Path("again.csv").read_text() == (folder / layout.CLUSTERS).read_text()


@pytest.mark.parametrize("method", [SimCLRConfig, MoCoConfig, BYOLConfig])
def test_methods_without_clusters_hand_out_the_start_with_those_of_k_means(
    method: type[MethodConfig],
) -> None:
    train("first")
    folder = train("second", init="first", method=TINY_METHODS[method])
    assert is_same(weights("second"), weights("first"))
    assert load("second").is_start
    assert (folder / layout.CLUSTERS).exists()
    assert "k-means" in read_record(folder)["guard"]["statement"]


def test_a_short_head_training_keeps_a_moving_average_of_the_start() -> None:
    train("first")
    method = replace(TINY_METHODS[SwAVConfig], ema_momentum=0.999)
    train("second", init="first", method=method)
    assert is_same(load("second").backbone.state_dict(), load("first").backbone.state_dict())


def test_it_is_said_first_and_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    train("first")
    caplog.clear()
    caplog.set_level("INFO")
    folder = train("second", init="first")
    last = caplog.records[-1]
    assert last.levelname == "INFO"
    for said in (STATEMENT, REASON, "--tune last:1", "--keep trained"):
        assert said in last.getMessage()
    page = (folder / layout.REPORT).read_text("utf-8")
    assert page.index("<h1>") < page.index(STATEMENT) < page.index('<div class="verdict">')
    assert "Not better than where it began" not in page
    readme = (folder / layout.MODEL / layout.README).read_text("utf-8")
    assert STATEMENT in readme[: readme.index("## ")]
    assert "Warning" not in readme


def test_a_run_from_scratch_stays_the_trained_network(caplog: pytest.LogCaptureFixture) -> None:
    folder = train("first")
    assert read_record(folder)["guard"]["handed_out"] == "trained"
    assert not load("first").is_start
    assert not (folder / layout.HANDED_OUT).exists()
    assert caplog.records[-2].levelname == caplog.records[-1].levelname == "WARNING"
    assert "the trained network all the same" in caplog.text


def test_a_finished_run_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    train("first")
    folder = train("second", init="first")
    before = modified(folder)
    Path("first").rename("moved")
    monkeypatch.setattr(guard, "compare", pytest.fail)
    monkeypatch.setattr(handed_out, "_made", pytest.fail)
    continued()
    changed = {path.name for path, time in modified(folder).items() if before.get(path) != time}
    assert changed <= {layout.LOG, layout.LOCK, layout.README, layout.RECORD, layout.BAD_FILES}


def test_what_was_lost_is_made_again() -> None:
    train("first")
    folder = train("second", init="first")
    clusters = load("second").objective.state_dict()["prototypes.heads.0.weight"]
    for path in (folder / layout.HANDED_OUT).rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    with pytest.raises(Exception, match="can be used"):
        load("second")
    swav.train("drawn.npz", out=folder, resume=True)
    assert torch.equal(load("second").objective.state_dict()["prototypes.heads.0.weight"], clusters)


def test_the_trained_network_can_be_kept() -> None:
    train("first")
    folder = train("second", init="first", keep="trained")
    trained = weights("second")
    assert not is_same(trained, weights("first"))
    assert not load("second").is_start
    assert read_record(folder)["guard"]["handed_out"] == "trained"

    continued(keep="better")
    assert load("second").is_start
    assert is_same(weights("second"), weights("first"))
    continued()
    assert load("second").is_start

    continued(keep="trained")
    assert not load("second").is_start
    assert is_same(weights("second"), trained)
    assert is_same(load("second").backbone.state_dict(), trained)


def test_a_run_that_is_trained_further_is_judged_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    train("first")
    folder = train("second", init="first")
    newest = sorted((folder / layout.CHECKPOINTS).iterdir())[-1]
    newest.rename("lost")
    better = replace(WORSE, agreement=0.9)

    def won(*arguments: Any, **options: Any) -> guard.Verdict:
        assert not load("second").is_start, "outputs are older than the training"
        return replace(lost(*arguments, **options), winner="trained", trained=better)

    monkeypatch.setattr(guard, "compare", won)
    continued()
    assert not load("second").is_start
    assert not is_same(weights("second"), weights("first"))


def test_it_is_shown_what_its_weights_know_and_equals_its_baseline() -> None:
    views = tiny_config().views
    small = replace(views, groups=(replace(views.groups[0], size=(16, 16)),))
    train("first", views=small)
    folder = train("second", init="first", evaluate_at_end=True)
    assert swav.load("second").transform.input_size == (3, 16, 16)
    scores = json.loads(layout.evaluation(folder, "knn").read_text())
    assert scores["baselines"]["start"] == scores["metrics"]
    page = (folder / layout.REPORT).read_text("utf-8")
    assert "Start, frozen" not in page
    start = swav.load("second").start()
    assert start is not None
    assert start.transform == swav.load("second").transform


def test_a_head_on_the_start_is_not_compared_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    train("first")
    monkeypatch.setattr(guard, "compare", pytest.fail)
    folder = train("second", init="first", tune="head")
    assert read_record(folder)["guard"] == {"skipped": "the network is that of the start"}


def trained_on_a_rank(rank: int, ranks: int, data: str, folder: str) -> None:
    """Train as one of several ranks; the last ends before the first makes its outputs."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks))
    os.environ.update(WORLD_SIZE=str(ranks), GROUP_RANK="0", TORCHELASTIC_RUN_ID="tests")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500", GLOO_SOCKET_IFNAME="lo")
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    guard.compare = lost
    head_training.HEAD_STEPS = 8
    for method in (SwAVConfig, DeepClusterConfig):
        config = tiny_config(data, epochs=1, evaluate_at_end=False, init=f"{folder}/first")
        config = replace(config, method=TINY_METHODS[method])
        swav.train(data, config=config, out=f"{folder}/{config.method.name}")


@pytest.mark.ranks
def test_only_the_first_rank_is_needed_for_the_clusters(folder: Path) -> None:
    train("first")
    name = "training.test_handed_out:trained_on_a_rank"
    on_ranks(name, str(folder / "drawn.npz"), str(folder), ranks=2, folder=folder)
    train("alone", init="first")
    for run in ("swav", "deepcluster"):
        assert load(run).is_start
        assert is_same(weights(run), weights("first"))
    several, one = (load(run).objective.state_dict() for run in ("swav", "alone"))
    torch.testing.assert_close(
        several["prototypes.heads.0.weight"], one["prototypes.heads.0.weight"]
    )
