"""The file that programs read."""

import json
from dataclasses import replace

import pytest

from swav.run_folder.result import Metric, Result

KNN = Result(
    task="knn",
    protocol={"temperature": 0.07},
    metrics={"top1_k5": 1.0, "top1_k10": 0.9},
    about={"top1_k5": Metric(title="Top-1", is_share=True)},
    intervals={"top1_k5": (0.96, 1.0)},
    seeds=(0,),
    counts={"fit": 100},
)


def test_the_file_holds_what_programs_read(tmp_path):
    pixels = replace(KNN, metrics={"top1_k5": 0.2, "top1_k10": 0.3})
    KNN.with_baseline("pixels", pixels).write(tmp_path / "eval/knn.json")
    read = json.loads((tmp_path / "eval/knn.json").read_text())
    assert (read["task"], read["metrics"]) == ("knn", KNN.metrics)
    assert read["about"]["top1_k5"]["title"] == "Top-1"
    assert read["intervals"] == {"top1_k5": [0.96, 1.0]}
    assert read["baselines"] == {"pixels": pixels.metrics}
    assert (read["protocol"], read["counts"]) == (KNN.protocol, {"fit": 100})
    assert read["versions"].keys() >= {"python", "torch", "scikit-learn"}
    assert read["seeds"] == [0]
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["knn.json"]


@pytest.mark.parametrize("change", [{"protocol": {"temperature": 1.0}}, {"task": "linear"}])
def test_a_baseline_of_another_protocol_is_refused(change):
    with pytest.raises(ValueError, match="evaluate both the same way"):
        KNN.with_baseline("pixels", replace(KNN, **change))


def test_metrics_that_cannot_be_compared_have_no_baseline():
    result = replace(KNN, details={"without_baseline": ["top1_k10"]})
    assert result.with_baseline("random", KNN).baselines == {"random": {"top1_k5": 1.0}}
    assert result.baselines == {}


def test_a_number_that_is_none_is_not_written(tmp_path):
    result = Result(task="knn", protocol={}, metrics={"top1_k5": float("nan")})
    path = tmp_path / "knn.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="JSON"):
        result.write(path)
    assert path.read_text() == "{}"
    assert [each.name for each in tmp_path.iterdir()] == ["knn.json"]
