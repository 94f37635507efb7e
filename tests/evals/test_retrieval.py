"""Retrieval against scikit-learn's average precision and a plain loop, and planted duplicates."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from swav.evals import RetrievalConfig, retrieval


def test_equal_to_scikit_learn_and_a_loop_over_the_queries(made):
    features = made.overlapping(90, seed=0)
    metrics = retrieval.run(RetrievalConfig(k=(1, 3)), features).metrics
    unit = torch.nn.functional.normalize(features.values.double(), dim=1)
    precisions, found = [], {1: 0, 3: 0}
    for row in range(90):
        others = [each for each in range(90) if each != row]
        cosines = (unit[others] @ unit[row]).numpy()
        right = (features.labels[others] == features.labels[row]).numpy()
        precisions.append(average_precision_score(right, cosines))
        for k in found:
            found[k] += right[np.argsort(-cosines)[:k]].any()
    assert metrics["map"] == pytest.approx(np.mean(precisions))
    assert {k: metrics[f"recall_at_{k}"] for k in found} == {
        k: pytest.approx(number / 90) for k, number in found.items()
    }


def test_a_score_set_asks_the_fit_set(made):
    fit, score = made.overlapping(80, seed=1), made.overlapping(40, seed=2)
    result = retrieval.run(RetrievalConfig(), fit, score)
    cosines = (
        torch.nn.functional.normalize(score.values, dim=1)
        @ torch.nn.functional.normalize(fit.values, dim=1).T
    )
    precisions = [
        average_precision_score((fit.labels == label).numpy(), row.numpy())
        for row, label in zip(cosines, score.labels, strict=True)
    ]
    assert result.metrics["map"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert result.counts["queries"] == 40


def test_separable_features_find_everything_and_meaningless_ones_chance(made):
    metrics = retrieval.run(RetrievalConfig(), made.separable(100)).metrics
    assert metrics["map"] == metrics["recall_at_1"] == 1
    result = retrieval.run(RetrievalConfig(k=(1,)), made.meaningless(600))
    low, high = result.intervals["recall_at_1"]
    assert low - 0.02 < 0.25 < high + 0.02
    assert result.metrics["map"] == pytest.approx(0.25, abs=0.03)


def test_planted_duplicates_are_found_and_nothing_else(made):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(300, 32)) + 20  # far from the origin: all cosines are near 1
    values[17] = values[250] + 0.01 * generator.normal(size=32)
    values[41] = values[40]
    result = retrieval.run(RetrievalConfig(), made.features_of(values, None))
    assert result.metrics == {"near_duplicates": 4 / 300}
    pairs = {frozenset(pair[:2]) for pair in result.details["near_duplicates"]}
    assert pairs == {frozenset(("17.png", "250.png")), frozenset(("40.png", "41.png"))}
    first = made.features_of(values[:100], None)
    split = retrieval.run(RetrievalConfig(), first, made.features_of(values[100:], None))
    assert split.counts["near_duplicate_pairs"] == 2


def test_pictures_that_are_all_alike_are_counted_but_not_all_listed(made):
    values = np.vstack([np.tile([1.0, 0.0, 0.0], (600, 1)), np.tile([0.0, 1.0, 0.0], (300, 1))])
    result = retrieval.run(RetrievalConfig(), made.features_of(values, None))
    assert result.metrics == {"near_duplicates": 1}
    assert result.counts["near_duplicate_pairs"] == 600 * 599 // 2 + 300 * 299 // 2
    assert len(result.details["near_duplicates"]) == retrieval.MOST_LISTED


def test_groups_from_a_file_take_the_place_of_labels(made, tmp_path):
    features = made.separable(40)
    lines = [f"{name},{label}" for name, label in zip(features.names, features.labels, strict=True)]
    path = tmp_path / "groups.csv"
    path.write_text("\n".join(["path,group", *lines]))
    config = RetrievalConfig(groups=str(path))
    unlabelled = features._replace(labels=None)
    by_group = retrieval.run(config, unlabelled)
    assert by_group.metrics == retrieval.run(RetrievalConfig(), features).metrics
    path.write_text("\n".join(["path,group", *lines[1:]]))
    with pytest.raises(ValueError, match=r"no group for 1 pictures, such as 0\.png"):
        retrieval.run(config, unlabelled)


def test_pictures_without_a_partner_ask_nothing(made):
    values = np.eye(5)
    features = made.features_of(values, np.array([0, 0, 1, 2, 3]))
    assert retrieval.run(RetrievalConfig(k=(1,)), features).counts["queries"] == 2
    with pytest.raises(ValueError, match="no picture has another one"):
        retrieval.run(RetrievalConfig(), made.features_of(values[:4], np.arange(4)))


@pytest.mark.parametrize("wrong", [{"k": ()}, {"max_queries": 0}, {"duplicate_cosine": 0.0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetrievalConfig(**wrong)
