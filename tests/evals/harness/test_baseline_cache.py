"""Baselines of the same pictures are measured once for a user, and never taken for others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import NUM_PICTURES, WITHOUT_BATCHNORM, drawn, tiny_config

import swav
from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import from_arrays
from swav.evals import KNNConfig
from swav.evals.harness import baseline_cache, baselines
from swav.evals.harness.baseline_cache import kept_in, users_folder
from swav.evals.harness.baselines import Baselines, Comparison
from swav.evals.harness.eval_data import EvalData, one_set
from swav.evals.harness.subject import Subject
from swav.evals.selection import at_end
from swav.run_folder.readers import read_evaluations
from swav.run_folder.result import Result

KNN = KNNConfig(k=(5,))
TRANSFORM = EvalTransform(input_size=(3, 20, 20), mean=(0.5,) * 3, std=(0.25,) * 3)


def data(seed: int = 0, shift: int = 0) -> EvalData:
    pictures, labels = drawn(seed=seed)
    return one_set(from_arrays(pictures, np.roll(labels, shift)))


def measured(
    folder: Path | None, eval_data: EvalData, task: KNNConfig = KNN, seed: int = 1
) -> Result:
    """Return the result of one network, beside an untrained one of a seed."""
    networks = []
    for each in (0, seed):
        torch.manual_seed(each)
        networks.append(WITHOUT_BATCHNORM.build(3))
    subject = Subject(eval_data, networks[0], TRANSFORM)
    kept = kept_in(folder)
    return Comparison(subject, networks[1], 0, Baselines(eval_data, kept=kept)).run(task)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """Every subject that is measured."""
    subjects: list[Subject] = []
    compute = baselines._result

    def counted(config: KNNConfig, subject: Subject) -> Result:
        subjects.append(subject)
        return compute(config, subject)

    monkeypatch.setattr(baselines, "_result", counted)
    return subjects


def test_the_second_run_measures_its_own_network_alone(
    tmp_path: Path, computed: list[Subject]
) -> None:
    expected = measured(None, data())
    assert len(computed) == 4
    first = measured(tmp_path / "kept", data())
    assert len(computed) == 8
    second = measured(tmp_path / "kept", data())
    assert len(computed) == 9
    assert first == second == expected
    assert second.baselines.keys() == {"random", "pixels", "patch-kmeans"}


@pytest.mark.parametrize("what", ["pixels", "labels", "names of sets", "task", "code"])
def test_what_a_score_depends_on_makes_another_one(
    what: str, tmp_path: Path, computed: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(tmp_path, data())
    changed, task = data(), KNN
    match what:
        case "pixels":
            changed = data(seed=1)
        case "labels":
            changed = data(shift=1)
        case "names of sets":
            changed = changed._replace(fit_on="others")
        case "task":
            task = replace(KNN, temperature=0.1)
        case "code":
            monkeypatch.setattr(baseline_cache, "_code_digest", lambda: "another")
    result = measured(tmp_path, changed, task)
    assert len(computed) == 8
    assert result == measured(None, changed, task)


def test_another_untrained_network_is_measured(tmp_path: Path, computed: list[Subject]) -> None:
    measured(tmp_path, data())
    other = measured(tmp_path, data(), seed=2)
    assert len(computed) == 6
    assert other == measured(None, data(), seed=2)


def test_damaged_files_and_folders_that_cannot_be_written(
    tmp_path: Path, computed: list[Subject]
) -> None:
    expected = measured(tmp_path, data())
    for number, file in enumerate(sorted(tmp_path.glob("*.json"))):
        file.write_text(("", "[]", '{"task": "knn"}')[number])
    assert measured(tmp_path, data()) == expected
    assert len(computed) == 8
    (tmp_path / "file").touch()
    assert measured(tmp_path / "file", data()) == expected


def test_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline_cache, "MOST_FILES", 3)
    measured(tmp_path, data())
    before = {file.name for file in tmp_path.iterdir()}
    measured(tmp_path, data(seed=1))
    after = {file.name for file in tmp_path.iterdir()}
    assert len(before) == len(after) == 3
    assert not before & after


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert users_folder() is None  # of the tests
    monkeypatch.setenv("SWAV_CACHE", "there")
    assert users_folder() == Path("there/baselines")
    monkeypatch.delenv("SWAV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/base")
    assert users_folder() == Path("/base/swav/baselines")


def test_the_end_of_a_run_measures_some_pictures_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["knn", "linear", "clusters"]
    everything = data()
    assert at_end(everything, names) == [(everything, names)]
    monkeypatch.setattr("swav.evals.selection.MOST_OTHERS_AT_END", 40)
    config = tiny_config(epochs=1)
    swav.train(everything.train, config=config, out=tmp_path / "run")
    found = {each.task: each for each in read_evaluations(tmp_path / "run")[0]}
    assert found["knn"].protocol["score"] == NUM_PICTURES
    assert found["knn"].protocol["fit_on"] == everything.fit_on
    assert found["linear"].protocol["fit_on"] == f"{everything.fit_on}, 40 of 64 pictures, evenly"
    assert found["part_retrieval"].protocol["gallery"] == 40
    assert found["linear"].protocol["fit"] + found["linear"].protocol["score"] == 40
