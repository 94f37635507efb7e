"""The study of the guard: what its summary counts, and that a run is measured once."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import csv_rows
import pytest
from tiny import tiny_config, write_pictures

import swav

PATH = Path(__file__).parents[2] / "benchmarks" / "guard_study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guard_study", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(study: ModuleType, run: str, init: str, **gains: float) -> dict[str, str]:
    """Return a row in which everything of the start is 0.5 and the trained network has gains."""
    values = dict.fromkeys(study.COLUMNS, "1") | {"run": run, "init": init, "overlap": "0.9"}
    for name in (*study.MEASURES, *study.TRUTHS):
        values[f"start_{name}"] = "0.5"
        values[f"trained_{name}"] = str(0.5 + gains.get(name, 0.0))
    return values


def test_the_summary_counts_signs_and_the_rules_mistakes(study: ModuleType, tmp_path: Path) -> None:
    better = {"agreement": 0.1, "stability": 0.1, "part_retrieval": 0.1}
    worse = {name: -value for name, value in better.items()}
    path = tmp_path / "rows.csv"
    for each in (
        row(study, "a", "lite0", **better, knn=0.04, linear=0.02, effective_rank=1),
        row(study, "b", "lite0", **better, knn=-0.03, linear=0.02, effective_rank=1),
        row(study, "c", "random", **worse, knn=-0.2, linear=-0.1, effective_rank=1),
        row(study, "d", "random", **worse, knn=0.05, linear=-0.1, effective_rank=-1),
    ):
        csv_rows.append(path, each, study.COLUMNS)
    rows = study.read_rows(path)
    assert len(rows) == 4
    assert study.sign_tally(rows, "agreement", "knn") == (2, 2)
    assert study.sign_tally(rows, "agreement", "linear") == (4, 0)
    assert study.sign_tally(rows, "effective_rank", "knn") == (1, 3)
    assert [study.picked(each) for each in rows] == ["trained", "trained", "start", "start"]
    assert study.confusion(rows, "knn") == {
        ("start", "start"): 1,
        ("start", "trained"): 1,
        ("trained", "start"): 1,
        ("trained", "trained"): 1,
    }
    assert study.costs(rows, "knn") == pytest.approx([3, 5])
    assert study.costs(rows, "linear") == []
    text = study.summary(rows)
    assert "| agreement | 2 of 4 (50%) | 4 of 4 (100%) |" in text
    assert "by knn: 2 of 4 wrong, 4.0 points each on average, 2.0 over all runs" in text
    assert "Overlap by knn, lowest to highest: 0.90 to 0.90 where" in text
    assert "untrained starts (n = 2)" in text


def test_a_row_that_was_cut_short_is_measured_again(study: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    csv_rows.append(path, row(study, "a", "lite0"), study.COLUMNS)
    with path.open("a") as file:
        file.write("b,emoji,lite0,sw")
    csv_rows.append(path, row(study, "b", "lite0"), study.COLUMNS)
    assert [each["run"] for each in study.read_rows(path)] == ["a", "b"]


def test_a_run_is_measured_once_and_one_that_fails_does_not_stop_the_rest(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_pictures(tmp_path)
    config = tiny_config(data, epochs=1, evaluate_at_end=False)
    swav.train(data, config=config, out="run")
    path = tmp_path / "rows.csv"
    assert study.study([("missing", data), ("run", data)], path) == ["missing"]
    (found,) = csv.DictReader(path.read_text().splitlines())
    assert (found["init"], found["compared"], found["seed"]) == ("random", "64", "0")
    assert all(0 <= float(found[f"start_{name}"]) <= 1 for name in ("agreement", "knn", "linear"))
    assert found["start_effective_rank"] != found["trained_effective_rank"]
    monkeypatch.setattr(study, "measured", pytest.fail)
    assert study.study([("run", data)], path) == []
