"""The table of starts: every kind of row is made once, and what its summary says."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import csv_rows
import numpy as np
import pytest
from tiny import drawn, tiny_config

import swav
from swav.recipes import make_config
from swav.recipes.train_config import TrainConfig

PATH = Path(__file__).parents[2] / "benchmarks" / "starts.py"


@pytest.fixture(scope="module")
def starts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("starts", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def short(*given: Any, **options: Any) -> TrainConfig:
    """Return the config of a recipe for few epochs on one thread."""
    config = make_config(*given, **options)
    return replace(config, epochs=2, threads=1, workers=0)


def test_rows_are_made_once_and_summed_up(
    starts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures, labels = drawn(120)
    np.savez("drawn.npz", pictures=pictures, labels=labels)
    config = tiny_config("drawn.npz", epochs=1, evaluate_at_end=False)
    swav.train("drawn.npz", config=config, out="run")
    monkeypatch.setattr(starts, "make_config", short)
    settings = starts.Settings(
        limit=80, seeds=2, init="run", tune=("all",), epochs=1, crops="2x16", device="cpu", size=18
    )
    target = tmp_path / "rows.csv"
    starts.measure([("stripes", "drawn.npz")], settings, target)
    rows = starts.read_rows(target)
    kinds = ["pixels", "untrained", "start", "start + head", "all"]
    assert [row["features"] for row in rows] == [kind for kind in kinds for _ in range(2)]
    assert {(row["fit_on"], row["scored"], row["classes"]) for row in rows} == {("80", "24", "4")}
    of = {(row["features"], row["seed"]): row for row in rows}
    for column in starts.SCORES[:4]:
        assert all(0 <= float(row[column]) <= 1 for row in rows)
        assert of["start", "1"][column] == of["start + head", "1"][column]
    assert {row["picked"] for row in rows if row["features"] == "all"} <= {"start", "trained"}
    with_clusters = {row["features"] for row in rows if row["own_nmi"]}
    assert with_clusters == {"start + head", "all"}
    assert all(0 <= float(row["own_accuracy"]) <= 1 for row in rows if row["own_nmi"])

    with target.open("a") as file:
        file.write("stripes,drawn.npz,80,run,pix")  # a row that was cut short
    monkeypatch.setattr(starts._Known, "scored", lambda *_: pytest.fail("made again"))
    starts.measure([("stripes", "drawn.npz")], settings, target)
    lines = starts.summary(starts.read_rows(target)).splitlines()
    assert len(lines) == 2 + len(kinds)
    assert lines[2].startswith("| stripes | 80 | pixels | ")
    assert "| all (run at 18, 1 epochs, 2x16) | " in lines[-1]
    assert lines[-1].endswith(" | 2 |")


def test_mean_and_spread_of_a_cell() -> None:
    rows = [{"knn": "0.5", "own_nmi": ""}, {"knn": "0.7", "own_nmi": ""}]
    assert csv_rows.mean_and_spread(rows, "knn", digits=2) == "0.60 +- 0.14"
    assert csv_rows.mean_and_spread(rows[:1], "knn", digits=2) == "0.50"
    assert csv_rows.mean_and_spread(rows, "own_nmi", digits=2) == "-"
