"""The comparison of methods: what it trains on, when it goes on, and what its table says."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tiny import drawn

PATH = Path(__file__).parents[2] / "benchmarks" / "methods.py"


@pytest.fixture(scope="module")
def methods() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_methods", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_long_tail_shrinks_evenly_in_logarithm(methods: ModuleType) -> None:
    labels = np.repeat(np.arange(10), 500)
    rows = np.random.default_rng(0).permutation(len(labels))
    sizes = np.bincount(labels[methods.long_tail(rows, labels[rows], 100)])
    assert (sizes[0], sizes[-1]) == (500, 5)
    np.testing.assert_allclose(sizes[:-1] / sizes[1:], 100 ** (1 / 9), rtol=0.15)


def test_every_method_is_told_from_an_untrained_network_of_its_size_and_seed(
    methods: ModuleType,
) -> None:
    jobs = list(methods.jobs(["swav", "jigsaw"]))
    assert jobs[0] == ("pixels", 0)
    for seed in (0, 1, 2):
        assert jobs.index(("untrained-32px", seed)) < jobs.index(("swav", seed))
    assert ("untrained-72px", 0) in jobs
    assert len(set(jobs)) == len(jobs)


def test_the_table_has_mean_deviation_gain_and_the_stage_that_was_best_before(
    methods: ModuleType,
) -> None:
    tuned, final = (
        [
            {"name": name, "seed": seed, "knn": knn, "stage1": first, "stage2": 0.4, "top1": 0.4}
            | ({"epochs": 2, "seconds": 60.0} if name == "swav" else {})
            for name, seed, knn, first in (
                *(("untrained-32px", 0, 0.30, 0.3), ("untrained-32px", 1, 0.32, 0.3)),
                *(("swav", 0, 0.40 + shift, 0.5), ("swav", 1, 0.42 + shift, 0.5)),
            )
        ]
        for shift in (0.0, 0.02)
    )
    final[2]["stage1"] = 0.1  # best before, not now
    lines = methods.table(methods.with_best_stage(final, tuned)).splitlines()
    assert lines[-1] == "| swav | 43.0 +- 1.4 (+12.0) | 40.0 +- 0.0 (+0.0) | " + (
        "30.0 +- 28.3 (-10.0) | 2 | 1.0 | 2 |"
    )
    assert methods.stage_table(final).splitlines()[-1] == "| swav | 30.0 | 40.0 |"


def test_two_crops_take_the_time_of_all_crops(methods: ModuleType, tmp_path: Path) -> None:
    for name, speed in (("swav-0", 100.0), ("swav-two-crops-0", 300.0)):
        (tmp_path / name).mkdir()
        logged = [speed] * 5 + [speed / 7] * 5  # something else took the machine
        lines = [json.dumps({"images_per_second": each}) for each in logged]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(["{}", *lines]))
    assert methods.num_epochs("swav-two-crops-same-time", tmp_path, 4) == 12
    assert methods.num_epochs("swav", tmp_path, 4) == 4
    alone = methods.config_of("swav-two-crops-same-time", seed=0, epochs=12)
    assert len(alone.views.groups) == 1


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_and_measures_nothing_twice(
    methods: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (picture, label) in enumerate(zip(*drawn(600), strict=True)):
        folder = tmp_path / "data" / ("test" if number % 5 == 0 else "train") / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    words = ["methods.py", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*words, "--epochs", "1", "--methods", "rotation"])
    methods.main()
    kept = tmp_path / "out" / "tune.jsonl"
    lines = kept.read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["pixels", "untrained-32px", "rotation"]
    kept.write_text("\n".join(lines[:2]) + "\n")
    methods.main()
    again = kept.read_text().splitlines()
    assert json.loads(again[2])["top1"] == json.loads(lines[2])["top1"]
