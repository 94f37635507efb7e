"""As many clusters as people ask for, whose numbers later calls and networks keep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from swav.engine import Objective
from swav.evals import Features
from swav.evals.harness.subject import centres_of
from swav.ops.agglomerate import (
    Match,
    MergeTree,
    match_clusters,
    merge_tree,
    natural_number,
    num_duplicates,
    renumbered,
)
from swav.run_folder import layout
from swav.run_folder.clusterings import (
    EMBEDDINGS,
    FEATURES,
    PROTOTYPES,
    KeptClustering,
    read_cluster_file,
    read_clustering,
)
from swav.run_folder.writers import printable, write_clustering
from swav.training.clusters import (
    Assignment,
    assign,
    assign_to_centres,
    assign_to_directions,
    assign_to_groups,
    clusters_of_method,
    default_number,
    fit_centres,
    network_digest,
)

NumClusters = int | Literal["auto"]
DUPLICATES = 0.95
"""Cosine from which on two prototypes are nearly equal: their scores differ by less than 0.32."""


class Numbered(NamedTuple):
    """The clusters of pictures, and the earlier ones whose numbers they have."""

    assignment: Assignment
    matches: tuple[Match, ...] = ()
    matched_with: str = ""
    """What holds the earlier clustering; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class ClusterSummary:
    """One cluster of the pictures that were asked for."""

    cluster: int
    name: str
    pictures: int
    confidence: float
    """Mean probability of its pictures."""


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """What ``swav cluster`` wrote, in short."""

    path: Path
    clustering: str
    """``prototypes``, ``k=12``; ``k-means`` for one that is of these very pictures."""
    clusters: tuple[ClusterSummary, ...]
    """Those with pictures, the largest first."""
    prototypes: int
    """Of the method; 0 if it has none."""
    duplicates: int
    """Prototypes that could be left out, as another is nearly equal."""
    matches: tuple[Match, ...]
    matched_with: str

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        clusters = [vars(cluster) for cluster in self.clusters]
        matches = [match._asdict() for match in self.matches]
        return {**vars(self), "path": str(self.path), "clusters": clusters, "matches": matches}


@dataclass(frozen=True)
class Clusterings:
    """The clusterings of a run: the method's own, and those on demand.

    Those on demand are made of the training's pictures, so that no picture's cluster depends on
    the others it is asked with.
    """

    folder: Path
    objective: Objective
    training: Callable[[], Features]
    """The features of the training's pictures, for a clustering that is not kept yet."""

    def directions(self) -> Float[np.ndarray, "prototypes embed"] | None:
        """Return the method's prototypes as unit vectors, None if it has none."""
        own = clusters_of_method(self.objective)
        prototypes = None if own is None else own.prototypes()
        return None if prototypes is None else F.normalize(prototypes.double(), dim=1).numpy()

    def of(
        self, features: Features, *, k: NumClusters | None, target: Path, match: bool = True
    ) -> Numbered:
        """Return the clusters of pictures.

        Args:
            features: of the pictures.
            k: how many clusters; None for the method's own, or k-means of these very pictures.
            target: file that will be replaced. If it holds the same clustering of another network,
                its numbers are kept; else those of what was kept or written in the run folder.
            match: False numbers by size, whatever was there before.
        """
        if k is None and clusters_of_method(self.objective) is None:
            return Numbered(assign(self.objective, features.values))
        number = self._natural_number() if k == "auto" else k
        name = PROTOTYPES if number is None else f"k={number}"
        network = network_digest(self.objective)
        kept = read_clustering(self.folder, name)
        earlier, source = self._earlier(target, kept, name, network) if match else ({}, "")
        if match and kept is not None and kept.network == network and not earlier:
            return Numbered(self._assign(kept, features.values))
        made, matches = self._matched(self._made(number, name, network), features, earlier)
        if matches or kept is not None or number is not None:  # prototypes have their own numbers
            write_clustering(self.folder, made)
        return Numbered(self._assign(made, features.values), matches, source if matches else "")

    def _earlier(
        self, target: Path, kept: KeptClustering | None, name: str, network: str
    ) -> tuple[Mapping[str, int], str]:
        """Return the cluster of every picture by the same clustering of another network."""
        is_outdated = kept is not None and kept.network != network
        for path in (target, self.folder / layout.CLUSTERS):
            written = read_cluster_file(path)
            if written and written.clustering == name and written.network != network:
                return written.by_path, str(path)
            if kept is not None and is_outdated and kept.paths:
                clusters = dict(zip(kept.paths, kept.clusters.tolist(), strict=True))
                return clusters, str(layout.clustering(self.folder, name))
            if kept is not None and not is_outdated:
                break  # numbers that were given stay, unless the target has others
        return {}, ""

    def _matched(
        self, made: KeptClustering, features: Features, earlier: Mapping[str, int]
    ) -> tuple[KeptClustering, tuple[Match, ...]]:
        """Return the clustering with the numbers of an earlier one, if they share pictures."""
        if not earlier:
            return made, ()
        asked = self._assign(made, features.values).clusters[:, 0].tolist()
        new = dict(zip(made.paths, made.clusters.tolist(), strict=True))
        new |= dict(zip(printable(features.names), asked, strict=True))
        common = [path for path in new if path in earlier]
        old = np.array([earlier[path] for path in common], dtype=np.int64)
        matches = match_clusters(old, np.array([new[path] for path in common], dtype=np.int64))
        if not matches:
            return made, ()
        ids = renumbered(made.ids, matches, np.array(sorted(set(earlier.values()))))
        number = dict(zip(made.ids.tolist(), ids.tolist(), strict=True))
        clusters = np.array([number[cluster] for cluster in new.values()], dtype=np.int64)
        return replace(made, ids=ids, paths=tuple(new), clusters=clusters), matches

    def _made(self, number: int | None, name: str, network: str) -> KeptClustering:
        """Return a clustering whose numbers are by size among the training's pictures."""
        own = clusters_of_method(self.objective)
        none = np.zeros((0, 0), dtype=np.float32)
        nobody = np.zeros(0, dtype=np.int64)
        made = KeptClustering(
            clustering=name, network=network, ids=nobody, centres=none, paths=(), clusters=nobody
        )
        if number is None:
            assert own is not None
            nothing = torch.zeros(1, int(self.objective.encoder.num_features))  # type: ignore[arg-type]
            probabilities = own.probabilities(nothing)
            return replace(made, ids=np.arange(probabilities.shape[1]))
        training = self._training
        check_number(number, len(training.values))
        if own is None:
            centres = fit_centres(training.values.numpy(), number)
        else:
            centres = centres_of(own, training.values, number).numpy()
        space = FEATURES if own is None else EMBEDDINGS
        made = replace(made, ids=np.arange(number), centres=centres, space=space)
        clusters = self._assign(made, training.values).clusters[:, 0]
        rank = np.empty(number, dtype=np.int64)
        sizes = np.bincount(clusters, minlength=number)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(number)
        paths = tuple(printable(training.names))
        return replace(made, ids=rank[made.ids], paths=paths, clusters=rank[clusters])

    @cached_property
    def _training(self) -> Features:
        return self.training()

    def _natural_number(self) -> int:
        """Return the number for ``auto``, which a few pictures may be fewer than."""
        return min(natural_number(self._tree), len(self._training.values))

    @cached_property
    def _tree(self) -> MergeTree:
        """Return the merges of the prototypes, or of many centres where there are none."""
        values, directions = self._training.values, self.directions()
        if directions is None:
            centres = fit_centres(values.numpy(), default_number(len(values)))
            nearest = assign_to_centres(values, centres).clusters[:, 0]
            directions = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        else:
            nearest = assign(self.objective, values).clusters[:, 0]
        # one picture more than it has, so that one without any has a weight too
        return merge_tree(directions, np.bincount(nearest, minlength=len(directions)) + 1.0)

    def _assign(self, made: KeptClustering, values: Float[Tensor, "images features"]) -> Assignment:
        if not made.centres.size:
            assignment = assign_to_groups(self.objective, values, made.ids)
        elif made.space == EMBEDDINGS:
            assignment = assign_to_directions(self.objective, values, made.centres, made.ids)
        else:
            assignment = assign_to_centres(values, made.centres, made.ids)
        return assignment._replace(clustering=made.clustering, network=made.network)


def summary(
    numbered: Numbered,
    path: Path,
    names: Mapping[int, str],
    directions: Float[np.ndarray, "prototypes embed"] | None,
) -> Clustered:
    """Return how large and how sure every cluster is."""
    assignment = numbered.assignment
    best, sure = assignment.clusters[:, 0], assignment.probabilities[:, 0]
    clusters = [
        ClusterSummary(
            cluster=int(cluster),
            name=names.get(int(cluster), ""),
            pictures=int((best == cluster).sum()),
            confidence=float(sure[best == cluster].mean()),
        )
        for cluster in np.unique(best)
    ]
    return Clustered(
        path=path,
        clustering=assignment.clustering,
        clusters=tuple(sorted(clusters, key=lambda cluster: (-cluster.pictures, cluster.cluster))),
        prototypes=0 if directions is None else len(directions),
        duplicates=0 if directions is None else num_duplicates(directions, cosine=DUPLICATES),
        matches=numbered.matches,
        matched_with=numbered.matched_with,
    )


def check_number(number: int, most: int | None = None) -> None:
    """Raise a ValueError unless there can be so many clusters of ``most`` pictures."""
    if number < 2 or (most is not None and number > most):
        upper = "upwards" if most is None else f"to {most} (the pictures of the training)"
        raise ValueError(
            f"there cannot be {number} clusters: k is a number from 2 {upper}, or auto"
        )
