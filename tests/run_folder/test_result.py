"""The file that programs read."""

import json

import pytest

from swav.evals import KNNConfig, LinearConfig, Result, knn, linear


def test_the_file_holds_what_programs_read(tmp_path, made):
    features = made.separable(100)
    config = KNNConfig(k=(5, 10))
    result = knn.run(config, features).with_baseline("pixels", knn.run(config, made.meaningless()))
    result.write(tmp_path / "eval/knn.json")
    read = json.loads((tmp_path / "eval/knn.json").read_text())
    assert read["task"] == "knn"
    assert read["metrics"] == {"top1_k5": 1, "top1_k10": 1}
    assert read["intervals"].keys() == read["baselines"]["pixels"].keys() == read["metrics"].keys()
    assert 0 <= read["baselines"]["pixels"]["top1_k5"] < 0.5
    assert read["protocol"]["temperature"] == 0.07
    assert read["counts"]["fit"] == 100
    assert read["versions"].keys() >= {"python", "torch", "scikit-learn"}
    assert read.keys() >= {"seeds"}
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["knn.json"]


def test_a_baseline_of_another_protocol_is_refused(made):
    features = made.separable(100)
    result = knn.run(KNNConfig(k=(5,)), features)
    for other in (
        knn.run(KNNConfig(k=(5,), temperature=1.0), features),
        knn.run(KNNConfig(k=(5,)), features, features),
        linear.run(LinearConfig(), features),
    ):
        with pytest.raises(ValueError, match="evaluate both the same way"):
            result.with_baseline("pixels", other)


def test_baselines_share_a_protocol_although_each_chooses_its_penalty(made):
    first, second = made.overlapping(300, seed=0), made.meaningless(300)
    result = linear.run(LinearConfig(), first)
    beside = result.with_baseline("random", linear.run(LinearConfig(), second))
    assert beside.baselines["random"]["top1"] < beside.metrics["top1"]
    assert result.baselines == {}


def test_a_number_that_is_none_is_not_written(tmp_path):
    result = Result(task="knn", protocol={}, metrics={"top1_k5": float("nan")})
    path = tmp_path / "knn.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="JSON"):
        result.write(path)
    assert path.read_text() == "{}"
    assert [each.name for each in tmp_path.iterdir()] == ["knn.json"]
