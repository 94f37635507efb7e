"""The linear probe against its own definition, and on features with a known answer."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit

from swav.evals import LinearConfig, linear
from swav.evals.harness.splits import stratified_folds, stratified_split
from swav.ops.metrics import wilson_interval


def test_separable_features_are_always_right_with_and_without_a_score_set(made):
    assert linear.run(LinearConfig(), made.separable(200)).metrics["top1"] == 1
    result = linear.run(LinearConfig(), made.separable(200), made.separable(100, seed=1))
    assert result.metrics["top1"] == 1
    assert result.counts == {"fit": 200, "score": 100, "classes": 4, "features": 6}


def test_meaningless_features_are_at_chance(made):
    result = linear.run(LinearConfig(), made.meaningless(400), made.meaningless(1000, seed=1))
    assert wilson_interval(250, 1000, confidence=0.999)[0] < result.metrics["top1"]
    assert result.metrics["top1"] < wilson_interval(250, 1000, confidence=0.999)[1]


def test_the_probe_minimises_mean_cross_entropy_and_half_the_penalty(made):
    """The accuracy is that of the minimum, found here by another solver in float64."""
    fit, score = made.overlapping(200, seed=0), made.overlapping(500, seed=1)
    config = LinearConfig(penalties=(0.03,), tolerance=1e-6)
    mean, deviation = fit.values.mean(dim=0), fit.values.std(dim=0, correction=0)
    learn, judge = (((each.values - mean) / deviation).double() for each in (fit, score))
    weight = torch.zeros(8, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        value = torch.nn.functional.cross_entropy(learn @ weight + bias, fit.labels)
        value = value + 0.03 / 2 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    right = ((judge @ weight + bias).argmax(dim=1) == score.labels).double().mean()
    assert linear.run(config, fit, score).metrics["top1"] == pytest.approx(float(right))


def test_the_penalty_is_the_best_on_the_held_out_part_and_reads_no_scored_label(made):
    fit, score = made.overlapping(120, seed=2), made.overlapping(60, seed=3)
    result = linear.run(LinearConfig(), fit, score)
    assert len(result.details["cross_validated_top1"]) == len(LinearConfig().penalties)
    shares = result.details["cross_validated_top1"]
    assert shares[f"{result.details['penalty']:g}"] == max(shares.values())
    shuffled = score._replace(labels=score.labels.flip(0))
    assert linear.run(LinearConfig(), fit, shuffled).details == result.details


def test_scale_and_offset_of_features_do_not_matter(made):
    fit, score = made.overlapping(150, seed=4), made.overlapping(150, seed=5)
    scale, offset = 10 ** torch.linspace(-3, 3, 8), torch.linspace(-2, 2, 8)
    changed = [each._replace(values=(each.values + offset) * scale) for each in (fit, score)]
    expected = linear.run(LinearConfig(), fit, score).metrics["top1"]
    assert linear.run(LinearConfig(), *changed).metrics["top1"] == pytest.approx(expected, abs=0.01)


def test_a_constant_feature_changes_nothing_even_if_it_is_not_constant_later(made):
    fit, score = made.overlapping(150, seed=4), made.overlapping(150, seed=5)
    expected = linear.run(LinearConfig(), fit, score).metrics
    wider = [
        each._replace(values=torch.cat([each.values, torch.full((150, 1), value)], dim=1))
        for each, value in ((fit, 0.1), (score, 1000.0))
    ]
    assert linear.run(LinearConfig(), *wider).metrics == expected


def test_top5_is_reported_when_it_can_be_wrong(made):
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 8
    values = np.eye(8)[labels] + 0.9 * generator.normal(size=(240, 8))
    features = made.features_of(values, labels)
    metrics = linear.run(LinearConfig(), features).metrics
    assert metrics["top1"] < metrics["top5"] <= 1
    assert "top5" not in linear.run(LinearConfig(), made.separable(100)).metrics


def test_two_classes_are_enough_and_one_is_not(made):
    features = made.separable(80)
    pair = features._replace(labels=features.labels % 2, classes=("even", "odd"))
    assert linear.run(LinearConfig(), pair).metrics["top1"] == 1
    with pytest.raises(ValueError, match="two classes or more"):
        linear.run(LinearConfig(), features._replace(labels=features.labels * 0))


def test_too_few_pictures_to_hold_any_out_are_refused(made):
    with pytest.raises(ValueError, match="too few to hold out 20%"):
        linear.run(LinearConfig(), made.separable(8))


def test_the_split_is_stratified_seeded_and_whole():
    labels = np.repeat([0, 1, 2], [50, 10, 1])
    split = stratified_split(labels, held_out=0.2, seed=0)
    assert np.bincount(labels[split.held_out], minlength=3).tolist() == [10, 2, 0]
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(61))
    again, other = (stratified_split(labels, held_out=0.2, seed=seed) for seed in (0, 1))
    assert np.array_equal(split.held_out, again.held_out)
    assert not np.array_equal(split.held_out, other.held_out)


def test_the_share_of_a_penalty_is_scikit_learns_cross_validation_on_the_same_folds(made):
    features = made.overlapping(180, seed=6)
    labels, values = features.labels.numpy(), features.values.numpy()
    values = ((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32)
    config = LinearConfig(penalties=(0.3, 0.003), folds=4, tolerance=1e-6)
    found = linear.run(config, features, features).details["cross_validated_top1"]
    fold_of = stratified_folds(labels, folds=4, seed=config.seed + 1)
    for penalty in config.penalties:
        num_right = 0
        for train, test in PredefinedSplit(fold_of).split():
            model = LogisticRegression(C=1 / (penalty * len(train)), tol=1e-6, max_iter=500)
            num_right += (
                model.fit(values[train], labels[train]).predict(values[test]) == labels[test]
            ).sum()
        assert found[f"{penalty:g}"] == pytest.approx(num_right / 180)


def test_folds_are_stratified_and_never_hold_out_the_only_picture_of_a_class():
    labels = np.repeat([0, 1, 2], [30, 7, 1])
    folds = stratified_folds(labels, folds=3, seed=0)
    assert np.bincount(folds[labels == 0]).tolist() == [10, 10, 10]
    assert sorted(np.bincount(folds[labels == 1]).tolist()) == [2, 2, 3]
    assert folds[labels == 2].tolist() == [-1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"penalties": ()},
        {"penalties": (0.0,)},
        {"held_out": 1.0},
        {"folds": 1},
        {"max_iterations": 0},
        {"tolerance": 0.0},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinearConfig(**wrong)


def test_baselines_share_a_protocol_although_each_chooses_its_penalty(made):
    first, second = made.overlapping(300, seed=0), made.meaningless(300)
    result = linear.run(LinearConfig(), first)
    beside = result.with_baseline("random", linear.run(LinearConfig(), second))
    assert beside.baselines["random"]["top1"] < beside.metrics["top1"]
    assert result.baselines == {}
