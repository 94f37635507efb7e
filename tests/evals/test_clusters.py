"""Clusters against labels, with known answers."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

from swav.evals import ClustersConfig, EvalData, Subject, clusters
from swav.evals.harness.subject import Clusters, assignment_of

MEASURES = ("nmi", "ami", "ari", "accuracy", "purity")


def test_separable_features_are_clustered_as_labelled(made):
    features = made.separable(200)
    result = clusters.run(ClustersConfig(), features, features.labels + 7)
    for measure in MEASURES:
        assert result.metrics[measure] == pytest.approx(1)
        assert result.metrics[f"kmeans_{measure}"] == pytest.approx(1)


def test_meaningless_features_agree_with_nothing(made):
    metrics = clusters.run(ClustersConfig(), made.meaningless(1000)).metrics
    assert metrics["nmi"] < 0.02
    assert abs(metrics["ari"]) < 0.02
    assert metrics["accuracy"] < 0.35


def test_one_cluster_for_everything_says_nothing_but_the_commonest_class(made):
    features = made.separable(200)
    metrics = clusters.run(ClustersConfig(), features, torch.zeros(200, dtype=torch.int64)).metrics
    assert (metrics["nmi"], metrics["ari"]) == (0, 0)
    assert "silhouette" not in metrics
    assert metrics["accuracy"] == metrics["purity"] == 0.25


def test_more_clusters_than_classes_stay_pure_but_match_less(made):
    features = made.separable(200)
    halves = features.labels * 2 + torch.arange(200) % 2
    metrics = clusters.run(ClustersConfig(), features, halves).metrics
    assert metrics["purity"] == 1
    assert metrics["accuracy"] < 0.75


def test_own_clusters_have_no_baseline_of_another_number(made):
    features = made.separable(200)
    halves = features.labels * 2 + torch.arange(200) % 2
    baseline = clusters.run(ClustersConfig(), features)
    beside = clusters.run(ClustersConfig(), features, halves).with_baseline("pixels", baseline)
    assert beside.metrics["purity"] == beside.metrics["kmeans_purity"] == 1
    assert {"kmeans_nmi", "kmeans_purity", "rankme"} <= beside.baselines["pixels"].keys()
    assert not {"nmi", "purity", "silhouette", "stability"} & beside.baselines["pixels"].keys()
    itself = baseline.with_baseline("pixels", baseline)
    assert itself.baselines["pixels"] == itself.metrics


def test_without_clusters_of_its_own_a_method_is_judged_by_k_means(made):
    result = clusters.run(ClustersConfig(), made.meaningless(100))
    for measure in MEASURES:
        assert result.metrics[measure] == result.metrics[f"kmeans_{measure}"]
    assert result.details == {"clusters_of": "k-means", "without_baseline": []}
    for measure in MEASURES:
        low, high = result.intervals[measure]
        assert low < result.metrics[measure] < high


def test_length_of_features_does_not_matter(made):
    features = made.separable(120)
    longer = features._replace(values=features.values * torch.linspace(0.1, 10, 120)[:, None])
    assert clusters.run(ClustersConfig(), longer).metrics["accuracy"] == 1


def test_too_many_clusters_are_refused(made):
    with pytest.raises(ValueError, match="50 clusters of 20 pictures"):
        clusters.run(ClustersConfig(num_clusters=50), made.separable(20))


def test_without_labels_the_structure_is_measured(made):
    features = made.separable(100, spread=0.001)._replace(labels=None, classes=())
    metrics = clusters.run(ClustersConfig(num_clusters=4), features).metrics
    unit = torch.nn.functional.normalize(features.values, dim=1).numpy()
    found = clusters.kmeans(features.values, 4, restarts=5, seed=0).labels_
    assert metrics.keys() == {"silhouette", "rankme"}
    assert metrics["silhouette"] == pytest.approx(silhouette_score(unit, found))
    assert metrics["rankme"] == pytest.approx(4, abs=0.1)


class Nearest(Clusters):
    """Clusters whose prototypes are rows of a matrix, the last two of them the same."""

    def __init__(self, prototypes):
        self._prototypes = prototypes

    def probabilities(self, features):
        unit = torch.nn.functional.normalize(features, dim=1)
        return (unit @ self._prototypes.T / 0.01).softmax(dim=1)

    def embeddings(self, features):
        return torch.nn.functional.normalize(features, dim=1)

    def prototypes(self):
        return self._prototypes


def test_a_methods_use_of_its_prototypes_has_a_known_answer(made):
    features = made.separable(200)
    axes = torch.eye(6)  # the four classes and two directions that nothing points to
    twin = torch.nn.functional.normalize(axes[5] + 0.01 * axes[4], dim=0)
    given = Nearest(torch.cat([axes, twin[None]]))
    found = clusters.of_prototypes(given, features, duplicate_cosine=0.99)
    assert found["prototypes_used"] == pytest.approx(4 / 7)
    assert found["duplicate_prototypes"] == pytest.approx(2 / 7)
    assert found["usage_entropy"] == pytest.approx(np.log(4) / np.log(7))
    assert found["code_entropy"] < 0.01
    undecided = features._replace(values=torch.ones(200, 6))
    guess = clusters.of_prototypes(Nearest(torch.eye(6)), undecided, duplicate_cosine=0.99)
    assert guess["code_entropy"] == pytest.approx(1)
    assert guess["duplicate_prototypes"] == guess["usage_entropy"] == 0


def test_own_clusters_are_as_many_as_those_of_k_means_beside_them(made):
    features = made.separable(200)
    twelve = Nearest(torch.eye(6).repeat(2, 1))  # too many to agree with four classes one to one
    own = assignment_of(twelve, made.meaningless(200).values[:, :6])
    found = clusters.run(ClustersConfig(), features, own, clusters=twelve)
    for measure in ("nmi", "ari", "accuracy"):
        assert found.metrics[f"own_k_{measure}"] == pytest.approx(1)
    assert found.metrics["accuracy"] < 0.5
    baseline = clusters.run(ClustersConfig(), made.meaningless(200))
    beside = found.with_baseline("pixels", baseline).baselines["pixels"]
    assert beside["own_k_nmi"] == beside["kmeans_nmi"] == baseline.metrics["kmeans_nmi"]
    low, high = baseline.intervals["own_k_nmi"]
    assert low < beside["own_k_nmi"] < high


def test_stability_is_the_agreement_of_the_clusters_of_two_views(made):
    features = made.separable(200)
    moved = made.meaningless(200).values[:, :6]
    for second, expected in ((features.values, 1.0), (moved, 0.0)):
        views = clusters.Views(features.values, second)
        metrics = clusters.run(ClustersConfig(), features, views=views).metrics
        assert metrics["stability"] == pytest.approx(expected, abs=0.05)
    one = torch.zeros(200, dtype=torch.int64)
    views = clusters.Views(features.values, features.values, one, one)
    assert clusters.run(ClustersConfig(), features, views=views).metrics["stability"] == 0
    other = torch.arange(200) % 3
    views = clusters.Views(features.values, features.values, features.labels, other)
    assert clusters.run(ClustersConfig(), features, views=views).metrics[
        "stability"
    ] == pytest.approx(adjusted_mutual_info_score(features.labels, other))


def test_a_subject_is_measured_with_its_clusters_and_its_views(made):
    pictures = made.pictures_of(30)
    subject = Subject(EvalData(pictures, None, "made", "made"))
    result = ClustersConfig(max_images=20).evaluate(subject)
    assert {"nmi", "silhouette", "alignment", "uniformity", "stability"} <= result.metrics.keys()
    assert 0 < result.metrics["alignment"] < 2
    assert "code_entropy" not in result.metrics


@pytest.mark.parametrize("wrong", [{"num_clusters": 1}, {"restarts": 0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClustersConfig(**wrong)
