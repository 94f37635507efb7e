"""Files of a run that was killed, or that other tools wrote, are read as far as they go."""

from pathlib import Path

import numpy as np
import pytest

from swav.run_folder.readers import (
    Absent,
    Metric,
    read_clusters,
    read_curves,
    read_embeddings,
    read_evaluations,
)


def test_half_a_line_and_missing_numbers_are_no_obstacle(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 2.5}', '{"loss": 9}', '{"step": 2, "loss": null, "lr": 0.1}']
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "lo']))
    columns = read_curves(tmp_path)
    assert set(columns) == {"step", "loss", "lr"}
    np.testing.assert_array_equal(columns["step"], [1, 2])
    np.testing.assert_array_equal(columns["loss"], [2.5, np.nan])


def test_clusters_come_by_size_and_members_by_probability(tmp_path: Path) -> None:
    rows = ["path,cluster,probability", "a,7,0.2", "b,3,0.5", "c,7,0.9", '"d,\n",7,', "e,,0.1"]
    (tmp_path / "clusters.csv").write_text("\n".join(rows))
    first, second = read_clusters(tmp_path)
    assert (first.name, first.paths) == ("7", ("c", "a", "d,\n"))
    assert (second.name, second.paths, second.probabilities) == ("3", ("b",), (0.5,))


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    text = '{"task": "knn", "metrics": {"a": NaN, "b": 1, "c": "2"}, "intervals": {"b": [0, null]}}'
    (tmp_path / "eval" / "knn.json").write_text(text)
    (tmp_path / "eval" / "other.json").write_text("[1, 2]")
    (evaluation,), unreadable = read_evaluations(tmp_path)
    assert evaluation.metrics == {"b": 1.0}
    assert evaluation.intervals == {}
    # what earlier versions wrote says nothing about its metrics
    assert (evaluation.title, evaluation.lead, evaluation.finding) == ("knn", "b", "")
    assert evaluation.about == {"b": Metric(title="b", higher_is_better=None)}
    assert unreadable == ["other.json"]


def test_what_a_metric_is_comes_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    text = """{"task": "new_task", "title": "New", "lead": "far", "metrics": {"near": 1, "far": 2},
    "details": {"input": {"crop_pct": 0.875, "interpolation": "bilinear", "mean": [0.5]}},
    "about": {"far": {"title": "distance", "is_share": false, "higher_is_better": false}}}"""
    (tmp_path / "eval" / "new_task.json").write_text(text)
    (evaluation,), _ = read_evaluations(tmp_path)
    assert (evaluation.title, evaluation.lead) == ("New", "far")
    assert evaluation.protocol == {"crop_pct": 0.875, "interpolation": "bilinear", "seeds": []}
    assert evaluation.about["far"] == Metric(title="distance", higher_is_better=False)
    assert evaluation.about["near"] == Metric(title="near", higher_is_better=None)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"embeddings": np.ones((2, 3))}, "does not hold the arrays"),
        ({"embeddings": np.ones((2, 3)), "paths": np.array(["a"])}, "do not belong together"),
        ({"embeddings": np.full((1, 3), np.nan), "paths": np.array(["a"])}, "not finite"),
        ({"embeddings": np.array([[None]]), "paths": np.array(["a"])}, "cannot be read"),
    ],
)
def test_embeddings_that_are_none_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], reason: str
) -> None:
    with (tmp_path / "embeddings.npz").open("wb") as file:
        np.savez(file, allow_pickle=True, **arrays)
    with pytest.raises(Absent, match=reason):
        read_embeddings(tmp_path)
