"""Weighted nearest neighbours against scikit-learn and against a plain loop."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from swav.evals import KNNConfig, knn


def scikit_learns(fit, score, k, temperature):
    model = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distances: np.exp((1 - distances) / temperature)
    )
    model.fit(fit.values.double().numpy(), fit.labels.numpy())
    return model.score(score.values.double().numpy(), score.labels.numpy())


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equal_to_scikit_learn_with_the_same_weights(made, temperature):
    fit, score = made.overlapping(300, seed=0), made.overlapping(150, seed=1)
    config = KNNConfig(k=(1, 5, 20, 300), temperature=temperature)
    metrics = knn.run(config, fit, score).metrics
    for k in config.k:
        assert metrics[f"top1_k{k}"] == pytest.approx(scikit_learns(fit, score, k, temperature))


def test_leave_one_out_is_a_loop_over_the_pictures(made):
    features = made.overlapping(80, seed=2)
    metrics = knn.run(KNNConfig(k=(1, 7, 79)), features).metrics
    values = torch.nn.functional.normalize(features.values, dim=1)
    for k in (1, 7, 79):
        num_right = 0
        for row in range(80):
            votes = torch.zeros(4)
            cosines = values @ values[row]
            others = sorted(set(range(80)) - {row}, key=lambda each: -float(cosines[each]))
            for other in others[:k]:
                votes[features.labels[other]] += torch.exp(cosines[other] / 0.07)
            num_right += int(votes.argmax() == features.labels[row])
        assert metrics[f"top1_k{k}"] == pytest.approx(num_right / 80)


def test_separable_features_are_always_right(made):
    assert set(knn.run(KNNConfig(), made.separable(400)).metrics.values()) == {1.0}


def test_meaningless_features_are_at_chance(made):
    result = knn.run(KNNConfig(k=(20,)), made.meaningless(1000))
    low, high = result.intervals["top1_k20"]
    assert low - 0.02 < 0.25 < high + 0.02


def test_a_tiny_temperature_is_the_nearest_neighbour_and_does_not_overflow(made):
    fit, score = made.overlapping(100, seed=3), made.overlapping(100, seed=4)
    sharp = knn.run(KNNConfig(k=(1, 50), temperature=1e-6), fit, score).metrics
    assert sharp["top1_k50"] == sharp["top1_k1"]


def test_numbers_of_neighbours_the_set_is_too_small_for_are_left_out_with_a_note(made):
    result = knn.run(KNNConfig(), made.separable(100))
    assert list(result.metrics) == ["top1_k5", "top1_k10", "top1_k20"]
    assert result.protocol["k"] == [5, 10, 20]
    assert "[100, 200]" in result.protocol["note"]
    held_out = knn.run(KNNConfig(), made.separable(100), made.separable(8, seed=1))
    assert "top1_k100" in held_out.metrics
    with pytest.raises(ValueError, match="use a smaller k"):
        knn.run(KNNConfig(k=(5,)), made.separable(5))


def test_a_class_never_seen_counts_as_wrong(made):
    fit = made.separable(100)
    seen = fit.labels != 3
    fit = fit._replace(
        values=fit.values[seen],
        labels=fit.labels[seen],
        names=[name for name, keep in zip(fit.names, seen, strict=True) if keep],
    )
    score = made.separable(40, seed=1)
    assert knn.run(KNNConfig(k=(5,)), fit, score).metrics["top1_k5"] == pytest.approx(0.75)


def test_sets_that_cannot_be_compared_are_refused(made):
    fit = made.separable(40)
    unlabelled = made.features_of(np.ones((4, 6)), None)
    with pytest.raises(ValueError, match="needs labels"):
        knn.run(KNNConfig(k=(1,)), unlabelled)
    with pytest.raises(ValueError, match="same class names"):
        knn.run(KNNConfig(k=(1,)), fit, fit._replace(classes=("a", "b", "c", "d")))
    with pytest.raises(ValueError, match="6 features and scores 8"):
        knn.run(KNNConfig(k=(1,)), fit, made.overlapping(10, seed=0))


@pytest.mark.parametrize("wrong", [{"k": ()}, {"k": (0,)}, {"temperature": 0.0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KNNConfig(**wrong)
