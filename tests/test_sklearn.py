"""The estimator keeps scikit-learn's contract, and learns digits without labels."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from tiny import drawn

from swav.data.views.augment import AugmentConfig
from swav.sklearn import SwAVClusters

TINY: dict[str, Any] = {"epochs": 1, "batch_size": 16, "device": "cpu", "random_state": 0}
MAY_FAIL = {
    "check_methods_subset_invariance": "the last bits of float32 may depend on the batch",
    "check_methods_sample_order_invariance": "the same",
}
LEAST_CHECKS = 45
_begun: set[str] = set()


@parametrize_with_checks([SwAVClusters(3, **TINY)], expected_failed_checks=lambda _: MAY_FAIL)
def test_contract(estimator: Any, check: Any) -> None:
    _begun.add(str(check))
    check(estimator)


def test_so_many_checks_ran(request: pytest.FixtureRequest) -> None:
    chosen = [item for item in request.session.items if item.name.startswith("test_contract[")]
    if not chosen:
        pytest.skip("the checks were not chosen")
    assert len(chosen) >= LEAST_CHECKS
    assert len(_begun) >= LEAST_CHECKS - len(MAY_FAIL)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    pictures, labels = load_digits(return_X_y=True)
    return pictures[:300], labels[:300]


def test_features_and_clusters_in_a_pipeline(digits: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, _ = digits
    augment = AugmentConfig(flip=0, blur=0)
    swav = SwAVClusters(12, image_shape=(8, 8), augment=augment, **TINY)
    features = make_pipeline(swav, StandardScaler()).fit_transform(pictures)
    assert features.shape == (300, len(swav.get_feature_names_out()))
    np.testing.assert_array_equal(swav.predict(pictures), swav.labels_)
    assert swav.predict(pictures[:1]) == swav.labels_[:1]
    again = clone(swav).fit(pictures)
    np.testing.assert_array_equal(again.labels_, swav.labels_)


def test_colour_pictures_in_rows() -> None:
    pictures, _ = drawn(32)
    swav = SwAVClusters(4, image_shape=(20, 20, 3), **TINY).fit(pictures.reshape(32, -1))
    assert swav.transform(pictures.reshape(32, -1)).dtype == np.float32
    assert swav.encoder_.encode(pictures).shape == (32, 256)


@pytest.mark.parametrize(
    ("shape", "message"),
    [(None, "give image_shape"), ((7, 7), r"\(7, 7, 1\) does not fit rows of 192 values")],
)
def test_rows_that_are_no_such_pictures(shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SwAVClusters(image_shape=shape, **TINY).fit(np.zeros((4, 192)))
