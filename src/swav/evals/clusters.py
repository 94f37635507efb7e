"""Clusters found without labels: how well they agree with labels, and how well they are made.

The clusters are the method's own (prototypes) when it has them, and always also those of
k-means on normalised features. What needs no labels is measured on any pictures.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from torch import Tensor

from swav.config import check_ranges
from swav.data.random import Stream
from swav.data.views.augment import AugmentConfig
from swav.evals.harness.extract import Features
from swav.evals.harness.input import AS_THE_MODEL, InputConfig
from swav.evals.harness.splits import spread
from swav.evals.harness.subject import (
    ROWS,
    Clusters,
    Subject,
    assignment_of,
    centres_of,
    nearest_centre,
)
from swav.evals.harness.views import view_features
from swav.ops.kmeans import DRAWS
from swav.ops.metrics import (
    alignment,
    effective_rank,
    hungarian_matches,
    jackknife_intervals,
    purity,
    uniformity,
    wilson_interval,
)
from swav.run_folder.result import Metric, Result

# milder than a training's (0.8, grey, blur): a measure of features, not of how hard views are
JITTER = AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.0, blur=0.0)

OF_OWN_CLUSTERS = ("nmi", "ami", "ari", "accuracy", "purity", "silhouette", "stability")
"""Metrics of a method's clusters, which grow or fall with their number: k-means of a baseline has
another number, so these stand alone, and the ``kmeans_`` ones beside the baselines."""

AGREEMENT = {
    "nmi": Metric(title="NMI"),
    "ami": Metric(title="AMI"),
    "ari": Metric(title="ARI"),
    "accuracy": Metric(title="accuracy", is_share=True),
    "purity": Metric(title="purity", is_share=True),
}
"""What clusters and labels have in common."""
OF_OWN_K = ("nmi", "ari", "accuracy")
"""Reported of as many own clusters as k-means has."""
METRICS = AGREEMENT | {
    **{
        f"kmeans_{name}": replace(metric, title=f"{metric.title} of k-means")
        for name, metric in AGREEMENT.items()
    },
    **{
        f"own_k_{name}": replace(
            AGREEMENT[name], title=f"{AGREEMENT[name].title} of own clusters, as many as k-means'"
        )
        for name in OF_OWN_K
    },
    "silhouette": Metric(title="silhouette"),
    "rankme": Metric(title="effective rank of the features (RankMe)"),
    "alignment": Metric(
        title="alignment (squared distance of two views; lower is better)", higher_is_better=False
    ),
    "uniformity": Metric(title="uniformity (lower is more evenly spread)", higher_is_better=False),
    "stability": Metric(title="stability (AMI of the clusters of two views)"),
    "code_entropy": Metric(title="entropy of a picture's codes, over ln K", higher_is_better=None),
    "usage_entropy": Metric(
        title="entropy of the clusters' sizes, over ln K", higher_is_better=None
    ),
    "prototypes_used": Metric(title="prototypes used", is_share=True),
    "duplicate_prototypes": Metric(
        title="prototypes with a near twin", is_share=True, higher_is_better=False
    ),
}


@dataclass(frozen=True, kw_only=True)
class ClustersConfig:
    """Agreement of clusters with labels (NMI, AMI, ARI, Hungarian, purity); without: structure."""

    name: ClassVar[str] = "clusters"
    title: ClassVar[str] = "Clusters"
    needs_labels: ClassVar[bool] = False
    baselines: ClassVar[tuple[str, ...]] = ("start", "random", "pixels", "patch-kmeans")
    input: ClassVar[InputConfig] = AS_THE_MODEL
    num_clusters: int | None = None
    """Of k-means; None: as many as there are classes, without labels the root of the number of
    pictures, at most 100."""
    restarts: int = 5
    """Starts of k-means, the tightest of which is kept (labels play no part in that). Without
    labels one start: only the stability between views asks for k-means then."""
    max_images: int = 1000
    """Pictures of the measures that need pairs or views, evenly through the set."""
    scale: tuple[float, float] = (0.3, 1.0)
    """Range of the share of the picture that a view covers; its colours are jittered."""
    duplicate_cosine: float = 0.99
    """Cosine from which two prototypes are duplicates."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_clusters is not None and self.num_clusters < 2:
            raise ValueError(f"num_clusters {self.num_clusters} must be 2 or more, or None")
        if self.restarts < 1:
            raise ValueError(f"restarts {self.restarts} must be 1 or more")
        if self.max_images < 3:
            raise ValueError(f"max_images {self.max_images} must be 3 or more")
        if not 0 < self.duplicate_cosine <= 1:
            raise ValueError(f"duplicate_cosine {self.duplicate_cosine} must lie in (0, 1]")
        check_ranges(self, scale="(0, 1]", seed="[0, 9e18]")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on features of the pictures that are scored, and of views.

        Clusters of the method add ``code_entropy``, ``usage_entropy``, ``prototypes_used`` and
        ``duplicate_prototypes``.
        """
        features, clusters = subject.scored_features, subject.clusters
        pictures = subject.data.scored
        views = view_features(
            subject,
            pictures.subset(spread(len(pictures), self.max_images)),
            scale=self.scale,
            augment=JITTER,
            seed=self.seed,
            epoch=Stream.CLUSTERS,
        )
        if clusters is None:
            return run(self, features, views=Views(*views))
        own = assignment_of(clusters, features.values)
        assigned = (assignment_of(clusters, view) for view in views)
        result = run(self, features, own, clusters=clusters, views=Views(*views, *assigned))
        added = of_prototypes(clusters, features, duplicate_cosine=self.duplicate_cosine)
        metrics = {**result.metrics, **added}
        return replace(result, metrics=metrics, about={name: METRICS[name] for name in metrics})


class Views(NamedTuple):
    """Features of two random views of some pictures, and their clusters if the method has any."""

    first: Float[Tensor, "sampled features"]
    second: Float[Tensor, "sampled features"]
    first_assignment: Int[Tensor, " sampled"] | None = None
    second_assignment: Int[Tensor, " sampled"] | None = None


def run(
    config: ClustersConfig,
    features: Features,
    assignment: Int[Tensor, " images"] | None = None,
    *,
    clusters: Clusters | None = None,
    views: Views | None = None,
) -> Result:
    """Return how clusters agree with labels, if there are any, and how they are made.

    With labels ``nmi``, ``ami``, ``ari``, ``accuracy`` and ``purity``, and the same of k-means;
    without ``assignment`` (the method's own clusters) the first five are those of k-means.
    ``own_k_nmi``, ``own_k_ari`` and ``own_k_accuracy`` are of as many clusters as k-means has, made
    like those of ``swav cluster --k`` from ``clusters``, without which they are k-means'. Always
    ``silhouette`` of the clusters and ``rankme`` of the features; with ``views`` also
    ``alignment``, ``uniformity`` and ``stability``, the adjusted mutual information of the
    clusters of the two views.

    Raises:
        ValueError: if there are fewer pictures than clusters.
    """
    num_images = len(features.names)
    labels = None if features.labels is None else features.labels.numpy()
    num_classes = 0 if labels is None else len(np.unique(labels))
    # k-means gets the number of classes for every model alike: NMI and purity grow with the number
    number = num_classes if num_classes > 1 else min(100, max(2, round(num_images**0.5)))
    number = config.num_clusters or number
    if number > num_images:
        raise ValueError(f"{number} clusters of {num_images} pictures: set num_clusters to fewer")
    restarts = config.restarts if labels is not None else 1
    model = kmeans(features.values, number, restarts=restarts, seed=config.seed)
    by_kmeans = model.labels_.astype(np.int64)
    # docs/decisions/0017: a method's own clusters stand beside no baseline, those of k-means do
    own = by_kmeans if assignment is None else assignment.numpy()
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    if labels is not None:
        own_k = by_kmeans
        if clusters is not None:
            centres = centres_of(clusters, features.values, number, seed=config.seed)
            own_k = nearest_centre(clusters, features.values, centres).numpy()
        every = tuple(AGREEMENT)
        for prefix, assigned, kept in (
            ("", own, every),
            ("kmeans_", by_kmeans, every),
            ("own_k_", own_k, OF_OWN_K),
        ):
            agreement, ends_of = _agreement(assigned, labels)
            metrics |= {f"{prefix}{metric}": agreement[metric] for metric in kept}
            intervals |= {
                f"{prefix}{metric}": ends_of[metric] for metric in kept if metric in ends_of
            }
    metrics |= _structure(config, features.values, own)
    if views is not None:
        metrics |= _two_views(views, model)
    return Result(
        task=config.name,
        title=config.title,
        protocol=_protocol(config, number, restarts),
        metrics=metrics,
        about={name: METRICS[name] for name in metrics},
        lead="" if labels is None else "kmeans_nmi",
        intervals=intervals,
        seeds=(config.seed,),
        counts={
            "score": num_images,
            "classes": num_classes,
            "clusters": len(np.unique(own)),
            "kmeans_clusters": number,
            "features": features.values.shape[1],
        },
        details={
            "clusters_of": "k-means" if assignment is None else "the method",
            "without_baseline": [] if assignment is None else list(OF_OWN_CLUSTERS),
        },
    )


def kmeans(
    values: Float[Tensor, "images features"], num_clusters: int, *, restarts: int, seed: int
) -> KMeans:
    """Return k-means fitted on L2-normalised features."""
    return KMeans(num_clusters, n_init=restarts, random_state=seed).fit(_unit(values))


def of_prototypes(
    clusters: Clusters, features: Features, *, duplicate_cosine: float
) -> dict[str, float]:
    """Return how a method uses its clusters.

    ``code_entropy``: mean entropy of a picture's probabilities, over that of a guess: 0 is sure.
    ``usage_entropy``: entropy of the sizes of the clusters, over the largest possible: 1 is even.
    ``prototypes_used``: share of clusters that are the nearest of some picture.
    ``duplicate_prototypes``: share of prototypes with a near twin.
    """
    entropy, chosen = 0.0, []
    for rows in torch.split(features.values, ROWS):  # probabilities of all may not fit
        probabilities = clusters.probabilities(rows).double()
        chosen.append(torch.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]))
        entropy += float(torch.special.entr(probabilities).sum())
    sizes = torch.stack(chosen).sum(dim=0).double()
    guess = max(float(np.log(len(sizes))), 1e-12)
    metrics = {
        "code_entropy": entropy / len(features.values) / guess,
        "usage_entropy": float(torch.special.entr(sizes / sizes.sum()).sum()) / guess,
        "prototypes_used": float((sizes > 0).double().mean()),
    }
    # entropies are over that of a guess, so that runs with other numbers of prototypes compare
    prototypes = clusters.prototypes()
    if prototypes is not None:
        unit = F.normalize(prototypes.double(), dim=1)
        twins = (unit @ unit.T).fill_diagonal_(-1).max(dim=1).values >= duplicate_cosine
        metrics["duplicate_prototypes"] = float(twins.double().mean())
    return metrics


def _structure(
    config: ClustersConfig,
    values: Float[Tensor, "images features"],
    assignment: Int[np.ndarray, " images"],
) -> dict[str, float]:
    """Return what features and clusters tell without labels and views."""
    rows = spread(len(values), config.max_images)
    some, clusters = values[torch.from_numpy(rows)], assignment[rows]
    metrics = {}
    if 1 < len(np.unique(clusters)) < len(rows):  # the silhouette of anything else is undefined
        metrics["silhouette"] = float(silhouette_score(_unit(some), clusters))
    return metrics | {"rankme": effective_rank(some)}


def _two_views(views: Views, model: KMeans) -> dict[str, float]:
    first, second = (
        model.predict(_unit(values)) if assigned is None else assigned.numpy()
        for values, assigned in (
            (views.first, views.first_assignment),
            (views.second, views.second_assignment),
        )
    )
    # one cluster for all agrees with itself perfectly: called 0, since collapse is no stability
    told_apart = len(np.unique(first)) > 1 and len(np.unique(second)) > 1
    return {
        "alignment": alignment(views.first, views.second),
        "uniformity": uniformity(views.first),
        "stability": float(adjusted_mutual_info_score(first, second)) if told_apart else 0.0,
    }


def _unit(values: Float[Tensor, "images features"]) -> Float[np.ndarray, "images features"]:
    unit: Float[np.ndarray, "images features"] = F.normalize(values, dim=1).numpy()
    return unit


def _protocol(config: ClustersConfig, num_clusters: int, restarts: int) -> dict[str, Any]:
    return {
        "kmeans": f"{num_clusters} clusters of L2-normalised features, "
        f"tightest of {restarts} starts",
        "own_k": f"{num_clusters} clusters of the method's unit embeddings, tightest of "
        f"{DRAWS + 1} starts of spherical k-means; without a method's clusters those of kmeans",
        "accuracy": "clusters and classes matched one to one (Hungarian)",
        "nmi": "arithmetic mean of the entropies",
        "views": f"crops of {config.scale[0]:g} to {config.scale[1]:g} of the picture, flips, "
        "colour jitter",
        "max_images": config.max_images,
        "duplicate_cosine": config.duplicate_cosine,
        "seed": config.seed,
    }


def _agreement(
    assignment: Int[np.ndarray, " images"], labels: Int64[np.ndarray, " images"]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return the five measures, and their intervals."""

    def information(rows: Int64[np.ndarray, " kept"]) -> dict[str, float]:
        classes, clusters = labels[rows], assignment[rows]
        return {
            "nmi": float(normalized_mutual_info_score(classes, clusters)),
            "ami": float(adjusted_mutual_info_score(classes, clusters)),
            "ari": float(adjusted_rand_score(classes, clusters)),
        }

    number = len(labels)
    # no mean over pictures, so no Wilson interval; why not a bootstrap: docs/decisions/0016
    of_all = information(np.arange(number))
    matches = hungarian_matches(assignment, labels)
    shares = {"accuracy": matches / number, "purity": purity(assignment, labels)}
    intervals = jackknife_intervals(of_all, information, number)
    intervals |= {name: wilson_interval(round(x * number), number) for name, x in shares.items()}
    return of_all | shares, intervals
