"""Logistic regression against scikit-learn's, whose coordinates are those of the features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from swav.ops.logistic import Probe, fit_logistic, principal_axes


def stretched(num_images: int, num_features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centred features of very different spread, and three classes that overlap."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, num_images)
    mixing = generator.normal(size=(num_features, num_features))
    values = generator.normal(size=(num_images, num_features)) * np.logspace(0, -2, num_features)
    values[:, :3] += np.eye(3)[labels]
    values = values @ np.linalg.qr(mixing)[0]
    return torch.from_numpy(values - values.mean(axis=0)).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("penalty", [1.0, 0.01, 0.0001])
@pytest.mark.parametrize("shape", [(120, 20), (40, 90)])
def test_equal_to_scikit_learn_in_fewer_steps(shape: tuple[int, int], penalty: float) -> None:
    values, labels = stretched(*shape)
    axes = principal_axes(values)
    nothing = Probe(torch.zeros(len(axes.variances), 3), torch.zeros(3))
    settings = {"variances": axes.variances, "tolerance": 1e-6, "max_iterations": 500}
    coordinates = values @ axes.directions
    found = fit_logistic(coordinates, labels, nothing, penalty=penalty, **settings)
    theirs = LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-10, max_iter=10_000)
    theirs.fit(values.double().numpy(), labels.numpy())
    expected = theirs.predict_proba(values.double().numpy())
    np.testing.assert_allclose(found.logits(coordinates).softmax(dim=1), expected, atol=2e-3)
    assert found.iterations < theirs.n_iter_[0] + 10
    again = fit_logistic(coordinates, labels, found, penalty=penalty, **settings)
    assert again.iterations <= 3  # it starts where it ends


def test_axes_are_those_of_the_covariance_and_span_what_there_is() -> None:
    values, _ = stretched(30, 12)
    for given in (values, values.repeat(1, 4)):  # by one Gram matrix, and by the other
        axes = principal_axes(given)
        assert len(axes.variances) == 12
        unit = axes.directions.T @ axes.directions
        torch.testing.assert_close(unit, torch.eye(12), atol=1e-4, rtol=0)
        spanned = given @ axes.directions @ axes.directions.T
        torch.testing.assert_close(spanned, given, atol=1e-4, rtol=0)
        spread = (given @ axes.directions).square().mean(dim=0)
        torch.testing.assert_close(spread, axes.variances, atol=1e-5, rtol=1e-3)
