"""What a run started from stands, frozen, beside its scores."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import WITH_BATCHNORM, tiny_config, tiny_pictures, write_pictures

import swav
from swav.commands.evaluate import evaluate
from swav.data.eval_transform import EvalTransform
from swav.evals import EvalData, KNNConfig, SemisupConfig, Subject, knn
from swav.evals.harness.baselines import Baselines, Comparison
from swav.evals.harness.finetune import FineTuneConfig
from swav.evals.harness.input import InputConfig
from swav.evals.harness.subject import Shown
from swav.exchange import lite0
from swav.nn.backbones import BackboneConfig
from swav.recipes.start_network import LITE0_BACKBONE
from swav.report import write_report
from swav.training.run import train

KNN = KNNConfig(k=(5,))
SHORT = FineTuneConfig(epochs=1, trunk_rate=0.05, head_rate=0.1)
SEMISUP = SemisupConfig(per_class=(4,), training=SHORT)
SMALL = EvalTransform(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.2,) * 3)
LARGE = EvalTransform(input_size=(3, 20, 20), mean=(0.4,) * 3, std=(0.3,) * 3)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return WITH_BATCHNORM.build().eval()


def trained(out: str, init: str, *, scores: bool, backbone: BackboneConfig = WITH_BATCHNORM) -> str:
    """Train one epoch on drawn pictures, and return them as DATA."""
    data = write_pictures(Path())
    made = tiny_config(data, backbone=backbone, epochs=1, evaluate_at_end=scores, init=init)
    crops = (replace(made.views.groups[0], size=(32, 32)),)
    train(data, config=replace(made, views=replace(made.views, groups=crops)), out=out)
    return data


def start_in(run: str, task: str = "knn") -> Mapping[str, float]:
    """Return the scores of the start that a run folder keeps."""
    baselines = json.loads(Path(run, "eval", f"{task}.json").read_text())["baselines"]
    found: Mapping[str, float] = baselines.get("start", {})
    return found


@pytest.mark.parametrize(
    ("task", "transform"),
    [
        (KNN, LARGE),
        (replace(KNN, input=InputConfig(crop_pct=0.5)), replace(LARGE, crop_pct=0.5)),
        (SEMISUP, LARGE),
    ],
    ids=["frozen", "cropped", "trained on"],
)
def test_the_start_is_shown_what_its_weights_know(
    task: KNNConfig | SemisupConfig, transform: EvalTransform
) -> None:
    data = EvalData(tiny_pictures(), None, "drawn", "drawn")
    subject, start = Subject(data, network(0), SMALL), Shown(network(1), LARGE)
    result = Comparison(subject, network(2), 0, Baselines(data), start).run(task)
    assert tuple(result.baselines) == task.baselines
    alone = task.evaluate(Subject(data, network(1), transform))
    assert result.baselines["start"] == alone.metrics


@pytest.mark.parametrize(("transform", "passes"), [(SMALL, 1), (LARGE, 2)])
def test_a_network_that_is_its_start_is_not_measured_twice(
    transform: EvalTransform, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = EvalData(tiny_pictures(), None, "drawn", "drawn")
    measured = []

    def run(config: KNNConfig, *features: object) -> object:
        measured.append(config)
        return original(config, *features)

    original = knn.run
    monkeypatch.setattr(knn, "run", run)
    baselines = Baselines(data)
    baselines.beside(KNN)
    measured.clear()
    start = Shown(network(0), transform)
    result = Comparison(Subject(data, network(0), SMALL), None, 0, baselines, start).run(KNN)
    assert len(measured) == passes
    assert (result.baselines["start"] == result.metrics) == (passes == 1)


def test_a_run_stands_beside_the_run_that_it_started_from(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    trained("first", "random", scores=False)
    trained("second", "first", scores=True)
    assert "start," in capsys.readouterr().err
    (alone,) = evaluate("first", tasks=["knn"])
    assert start_in("second") == pytest.approx(alone.metrics, abs=1e-6)
    assert start_in("second", "linear")
    assert "start" not in alone.baselines
    assert "start," not in capsys.readouterr().out
    report = Path("second/report.html").read_text()
    assert '<th scope="col">Start, frozen</th>' in report
    assert "better than where it began, " in report
    assert "Start, frozen" not in write_report(Path("first")).read_text()
    shown = swav.load("second").start()
    assert shown is not None
    assert swav.load("first").start() is None

    Path("first").rename("moved")
    before = start_in("second")
    for _ in range(2):
        caplog.clear()
        (again,) = evaluate("second", tasks=["knn"])
        assert caplog.text.count("first is not there") == 1
        assert again.baselines["start"] == start_in("second") == before
        assert "random" in again.baselines
    evaluate("second", tasks=["knn"], crop_pct=0.5)
    assert not start_in("second"), "what was kept is of other input"


def test_a_start_that_has_been_trained_on_is_another(caplog: pytest.LogCaptureFixture) -> None:
    trained("first", "random", scores=False)
    trained("second", "first", scores=False)
    record = json.loads(Path("second/run.json").read_text())
    record["start"]["sha256"] = "0" * 64
    Path("second/run.json").write_text(json.dumps(record))
    (result,) = evaluate("second", tasks=[KNN])
    assert "start" not in result.baselines
    assert "--init first now has other weights" in caplog.text


def test_a_run_from_lite0_stands_beside_lite0(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = trained("run", "lite0", scores=False, backbone=LITE0_BACKBONE)
    (beside,) = evaluate("run", tasks=[KNN])
    (alone,) = evaluate("lite0", data, tasks=[KNN])
    assert start_in("run") == pytest.approx(alone.metrics, abs=1e-6)
    assert beside.metrics != alone.metrics
    monkeypatch.setattr(lite0, "find_spec", lambda _: None)
    assert evaluate("run", tasks=[KNN])
    assert caplog.text.count(f"pip install {lite0.DISTRIBUTION}") == 1
