"""The guard: its rule, and that a run that made things worse says so everywhere."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_config, write_pictures

import swav
from swav.engine.optim import OptimConfig
from swav.evals import label_free
from swav.evals.label_free import Measures
from swav.recipes.train_config import read_train_config
from swav.run_folder import layout
from swav.run_folder.record import read_record
from swav.training.guard import decide
from swav.training.networks import transform_of, untrained_network

START = Measures(effective_rank=50.0, agreement=0.5, stability=0.6, part_retrieval=0.3)


@pytest.mark.parametrize(
    ("changes", "winner"),
    [
        ({}, "trained"),
        ({"agreement": 0.6, "stability": 0.7, "part_retrieval": 0.4}, "trained"),
        ({"agreement": 0.49, "part_retrieval": 0.29}, "trained"),
        ({"agreement": 0.4}, "start"),
        ({"part_retrieval": 0.2}, "start"),
        ({"stability": 0.1}, "trained"),
        ({"effective_rank": 90.0, "agreement": 0.3}, "start"),
    ],
)
@pytest.mark.parametrize("start_is_trained", [True, False])
def test_the_trained_network_loses_if_one_measure_is_worse(
    changes: dict[str, float], start_is_trained: bool, winner: str
) -> None:
    trained = replace(START, **changes)
    found, reason = decide(START, trained, start_is_trained=start_is_trained)
    assert found == winner
    assert reason.endswith(".")


def verdict_of(winner: str) -> dict[str, Any]:
    return {"winner": winner, "reason": f"The {winner} network it is.", "remedy": "Do better."}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return write_pictures(tmp_path)


def train(data: str, **changes: Any) -> Path:
    config = tiny_config(data, **({"epochs": 1, "evaluate_at_end": False} | changes))
    return swav.train(data, config=config, out="run").folder


def test_a_run_from_scratch_is_compared_with_the_untrained_network(data: str) -> None:
    folder = train(data)
    guard = read_record(folder)["guard"]
    config = read_train_config(folder / layout.CONFIG)
    pictures = config.data.build()
    untrained = untrained_network(config, num_images=len(pictures))
    told = label_free.encoded(untrained, transform_of(config), pictures)
    assert guard["start"] == pytest.approx(asdict(label_free.measures(told)), rel=1e-4)
    assert guard["num_images"] == len(pictures)
    assert guard["winner"] in ("start", "trained")
    assert "--init lite0" in guard["remedy"]


def test_a_run_from_another_is_compared_with_what_it_started_from(
    data: str,
) -> None:
    first = train(data).rename("first")
    folder = train(
        data,
        init=str(first),
        optim=OptimConfig(optimizer="adamw", batch_size=16, learning_rate=1e-9, warmup_epochs=0),
    )
    guard = read_record(folder)["guard"]
    assert guard["start"] == pytest.approx(read_record(first)["guard"]["trained"], rel=1e-3)
    assert guard["overlap"] > 0.95
    assert guard["winner"] == "trained"


def test_a_start_that_has_gone_is_said_and_does_not_stop_the_run(
    data: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ValueError("the file has gone")

    monkeypatch.setattr("swav.training.guard.compare", gone)
    guard = read_record(train(data))["guard"]
    assert guard["skipped"] == "the file has gone"
    assert "the file has gone" in caplog.text


@pytest.mark.parametrize("winner", ["start", "trained"])
def test_a_network_that_lost_is_nowhere_handed_out_without_saying_so(
    data: str, winner: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("swav.training.outputs.judged", lambda *_, **__: verdict_of(winner))
    caplog.set_level("INFO")
    folder = train(data)
    messages = [record.getMessage() for record in caplog.records]
    page = (folder / layout.REPORT).read_text("utf-8")
    readme = (folder / layout.MODEL / layout.README).read_text("utf-8")
    reason = f"The {winner} network it is."
    assert page.index("<h1>") < page.index(reason) < page.index("<nav")
    if winner == "start":
        assert messages[-2:] == [reason, "Do better."]
        assert f"\n> **Warning.** {reason} Do better.\n" in readme
        assert "Not better than where it began" in page
    else:
        assert messages[-1] == reason
        assert "Warning" not in readme
        assert "Do better." not in page[: page.index("<nav")]


def test_a_finished_run_is_judged_once(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = train(data)
    before = (folder / layout.REPORT).stat().st_mtime_ns, read_record(folder)["guard"]
    monkeypatch.setattr("swav.training.outputs.judged", pytest.fail)
    swav.train(data, out=folder, resume=True)
    assert before == ((folder / layout.REPORT).stat().st_mtime_ns, read_record(folder)["guard"])
