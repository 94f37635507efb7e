"""The published linear protocol against SGD written out, and on features with a known answer."""

import math

import numpy as np
import pytest
import torch

from swav.data.loader import epoch_order
from swav.evals import LinearSGDConfig, Subject, linear_sgd
from swav.evals.harness.eval_data import EvalData


def by_hand(config, views, labels, num_classes):
    """SGD with momentum and weight decay in float64, as its update rule says."""
    generator = torch.Generator().manual_seed(config.seed)
    weight = torch.empty(num_classes, views[0].shape[1]).normal_(std=0.01, generator=generator)
    weight = weight.double().numpy()
    bias, state = np.zeros(num_classes), [np.zeros_like(weight), np.zeros(num_classes)]
    for epoch in range(config.epochs):
        rate = 0.3 * config.batch_size / 256 * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
        values = views[epoch % config.passes].double().numpy()
        order = epoch_order(len(labels), config.seed, epoch)
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size]
            logits = values[rows] @ weight.T + bias
            error = np.exp(logits - logits.max(axis=1, keepdims=True))
            error /= error.sum(axis=1, keepdims=True)
            error[np.arange(len(rows)), labels[rows]] -= 1
            error /= len(rows)
            gradients = error.T @ values[rows] + 1e-6 * weight, error.sum(axis=0) + 1e-6 * bias
            state = [0.9 * old + new for old, new in zip(state, gradients, strict=True)]
            weight, bias = weight - rate * state[0], bias - rate * state[1]
    return weight, bias


@pytest.mark.parametrize("passes", [2, 5])
def test_the_layer_is_that_of_the_update_rule(made, passes):
    features = made.overlapping(60, seed=0)
    config = LinearSGDConfig(epochs=5, passes=passes, batch_size=16)
    views = [made.overlapping(60, seed=0).values + 0.1 * place for place in range(passes)]
    layer = linear_sgd.trained_layer(
        config, iter(views), features.labels, feature_dim=8, num_classes=4
    )
    weight, bias = by_hand(config, views, features.labels.numpy(), 4)
    np.testing.assert_allclose(layer.weight.detach(), weight, atol=1e-5)
    np.testing.assert_allclose(layer.bias.detach(), bias, atol=1e-5)


def test_separable_features_are_always_right_and_shuffled_labels_chance(made):
    config = LinearSGDConfig(epochs=20, passes=1)
    fit, score = made.separable(200), made.separable(100, seed=1)
    assert linear_sgd.run(config, iter([fit.values]), fit, score).metrics == {"top1": 1}
    own_split = linear_sgd.run(config, iter([fit.values]), fit)
    assert own_split.metrics == {"top1": 1}
    assert own_split.counts["score"] == 40
    fit, score = made.meaningless(400), made.meaningless(600, seed=1)
    low, high = linear_sgd.run(config, iter([fit.values]), fit, score).intervals["top1"]
    assert low - 0.02 < 0.25 < high + 0.02


def test_views_are_drawn_anew_each_pass_and_the_same_for_the_same_seed(made):
    pictures = made.pictures_of(12)
    subject = Subject(EvalData(pictures, None, "made", "made"))
    first, second = (
        LinearSGDConfig(epochs=2, passes=2, seed=seed).evaluate(subject).to_json()
        for seed in (3, 3)
    )
    assert first == second
    drawn = linear_sgd.view_features(subject, pictures, scale=(0.08, 1.0), seed=3, epoch=0)
    again = linear_sgd.view_features(subject, pictures, scale=(0.08, 1.0), seed=3, epoch=0)
    later = linear_sgd.view_features(subject, pictures, scale=(0.08, 1.0), seed=3, epoch=1)
    assert torch.equal(drawn[0], again[0])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], later[0])


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"passes": 101}, {"lr_per_256": 0.0}, {"held_out": 1.0}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinearSGDConfig(**wrong)
