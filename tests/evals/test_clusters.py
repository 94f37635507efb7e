"""Clusters against labels, with known answers."""

import pytest
import torch

from swav.evals import ClustersConfig, clusters

MEASURES = ("nmi", "ari", "accuracy", "purity")


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
    assert metrics["accuracy"] == metrics["purity"] == 0.25


def test_more_clusters_than_classes_stay_pure_but_match_less(made):
    features = made.separable(200)
    halves = features.labels * 2 + torch.arange(200) % 2
    metrics = clusters.run(ClustersConfig(), features, halves).metrics
    assert metrics["purity"] == 1
    assert metrics["accuracy"] < 0.75


def test_without_clusters_of_its_own_a_method_is_judged_by_k_means(made):
    result = clusters.run(ClustersConfig(), made.meaningless(100))
    for measure in MEASURES:
        assert result.metrics[measure] == result.metrics[f"kmeans_{measure}"]
    assert result.details == {"clusters_of": "k-means"}
    low, high = result.intervals["accuracy"]
    assert low < result.metrics["accuracy"] < high


def test_length_of_features_does_not_matter(made):
    features = made.separable(120)
    longer = features._replace(values=features.values * torch.linspace(0.1, 10, 120)[:, None])
    assert clusters.run(ClustersConfig(), longer).metrics["accuracy"] == 1


def test_too_many_clusters_are_refused(made):
    with pytest.raises(ValueError, match="50 clusters of 20 pictures"):
        clusters.run(ClustersConfig(num_clusters=50), made.separable(20))


@pytest.mark.parametrize("wrong", [{"num_clusters": 1}, {"restarts": 0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClustersConfig(**wrong)
