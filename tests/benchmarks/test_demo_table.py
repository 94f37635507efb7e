"""The table of the demo's benchmark: means over seeds, and whether a baseline is within reach."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "demo.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_benchmark", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seed_folder(benchmark: ModuleType, folder: Path, value: float) -> Path:
    """Write the scores of a run that is at ``value``, its baselines at 0.5 and pixels at 0.7."""
    (folder / "eval").mkdir(parents=True)
    for task, (metric, _) in benchmark.SHOWN.items():
        beside = dict.fromkeys(benchmark.BASELINES, 0.5) | {"pixels": 0.7}
        result = {
            "metrics": {metric: value},
            "intervals": {metric: [value - 0.05, value + 0.05]},
            "baselines": {name: {metric: score} for name, score in beside.items()},
        }
        (folder / "eval" / f"{task}.json").write_text(json.dumps(result))
    return folder


def test_means_over_seeds_and_the_best_baseline(benchmark: ModuleType, tmp_path: Path) -> None:
    folders = [
        seed_folder(benchmark, tmp_path / f"seed-{seed}", 0.74 + seed / 10) for seed in (0, 1)
    ]
    lines = benchmark.table(folders)
    knn = "| kNN, k = 10 | 79.0 +- 7.1 | 50.0 +- 0.0 | 50.0 +- 0.0 | 70.0 +- 0.0 | 50.0 +- 0.0 |"
    assert knn in lines
    assert "pixels 70.0 is NOT below" in benchmark.sureness(folders[0])[0]
    assert "pixels 70.0 is below" in benchmark.sureness(folders[1])[0]
