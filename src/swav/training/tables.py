"""From features and clusters to the tables that other programs read."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from swav.data.sources.open import Data
from swav.data.sources.pictures import Pictures
from swav.evals import Features
from swav.ops.neighbours import nearest
from swav.report.map_positions import FEWEST_POINTS, place_all
from swav.report.thumbnails import encoded
from swav.run_folder.cluster_folder import Member, write_links
from swav.run_folder.parquet import ClusterColumns, PictureTable, write_parquet
from swav.run_folder.writers import (
    printable,
    write_cluster_probabilities,
    write_clusters,
    write_embeddings,
)
from swav.training.clusters import Assignment

NEIGHBOURS = 10
MOST_WITH_NEIGHBOURS = 100_000
"""Pictures: those of more take hours on a CPU, as each is compared with all."""

Thumbnail = Callable[[str], bytes | None]


def write_features(
    features: Features, path: Path, *, network: str = "", thumbnail: Thumbnail | None = None
) -> None:
    """Write features with the names of the pictures, and their labels if they have any.

    Args:
        features: of the pictures.
        path: ``.npz``, ``.csv`` or ``.parquet``, which has no labels.
        network: digest of the weights, for ``.parquet``.
        thumbnail: gives a small JPEG of the picture of a name, for ``.parquet``.
    """
    if path.suffix == ".parquet":
        write_parquet(path, _table(features, network, thumbnail))
        return
    labels = None if features.labels is None else features.labels.numpy()
    write_embeddings(path, features.values.numpy(), features.names, labels, features.classes)


def write_assignment(
    features: Features,
    assignment: Assignment,
    path: Path,
    called: Mapping[int, str] | None = None,
    *,
    network: str = "",
    thumbnail: Thumbnail | None = None,
) -> None:
    """Write the best cluster of every picture as CSV or Parquet, those kept beside as ``.npz``."""
    clusters, probabilities = assignment.clusters[:, 0], assignment.probabilities[:, 0]
    # first, as the .npz alone says which clustering a file holds
    if path.suffix == ".parquet":
        names = called or {}
        columns = ClusterColumns(
            clusters=clusters,
            names=[names.get(cluster) for cluster in clusters.tolist()],
            probabilities=probabilities,
            distances=distances_to_middle(features.values, clusters),
            clustering=assignment.clustering,
        )
        write_parquet(path, _table(features, network, thumbnail, columns))
    else:
        write_clusters(path, features.names, clusters, probabilities, called)
    write_cluster_probabilities(
        path.with_suffix(".npz"),
        assignment.clusters,
        assignment.probabilities,
        clustering=assignment.clustering,
        network=assignment.network,
    )


def named_after(data: Data, ending: str) -> Path:
    """Return a file in the working folder that is named after DATA: ``photos-clusters.csv``."""
    name = str(data) if isinstance(data, str | Path) else "pictures"
    stem = Path(name.rstrip("/").split(":")[0]).name.split(".")[0] or "pictures"
    return Path(f"{stem}-{ending}")


def link_clusters(
    folder: Path,
    features: Features,
    assignment: Assignment,
    pictures: Pictures,
    called: Mapping[int, str],
) -> None:
    """Write links to the pictures, those of a cluster in a folder, the most probable first."""
    indices = {name: index for index, name in enumerate(pictures.names)}
    best, sure = assignment.clusters[:, 0], assignment.probabilities[:, 0]
    members: dict[int, list[Member]] = {}
    for row in np.argsort(-sure, kind="stable").tolist():
        name = features.names[row]
        index = indices[name]
        png = partial(encoded, pictures, index)
        members.setdefault(int(best[row]), []).append(Member(name, pictures.file(index), png))
    write_links(folder, members, called)


def distances_to_middle(
    values: Float[Tensor, "images features"], clusters: Int[np.ndarray, " images"]
) -> Float[np.ndarray, " images"]:
    """Return 1 - cosine to the mean of the normalised features of the pictures of the cluster."""
    unit = F.normalize(values.float(), dim=1)
    numbers, places = np.unique(clusters, return_inverse=True)
    middles = unit.new_zeros(len(numbers), unit.shape[1])
    middles.index_add_(0, torch.from_numpy(places), unit)
    distances = np.empty(len(unit), dtype=np.float32)
    for number, middle in enumerate(F.normalize(middles, dim=1)):
        rows = np.flatnonzero(places == number)
        distances[rows] = (1 - unit[rows] @ middle).numpy()
    return distances


def _table(
    features: Features,
    network: str,
    thumbnail: Thumbnail | None,
    clusters: ClusterColumns | None = None,
) -> PictureTable:
    return PictureTable(
        names=printable(features.names),
        embeddings=features.values.numpy(),
        network=network,
        neighbours=_neighbours(features.values),
        x_y=_map(features.values),
        clusters=clusters,
        thumbnail=thumbnail,
    )


def _map(values: Float[Tensor, "images features"]) -> Float[np.ndarray, "images 2"] | None:
    """Return where the pictures lie on a map; None for too few."""
    return place_all(values.numpy()) if len(values) >= FEWEST_POINTS else None


def _neighbours(
    values: Float[Tensor, "images features"],
) -> tuple[Int[np.ndarray, "images _"], Float[np.ndarray, "images _"]] | None:
    """Return the rows of the nearest other pictures and 1 - cosine; None for too many pictures."""
    if not 1 < len(values) <= MOST_WITH_NEIGHBOURS:
        return None
    number = min(NEIGHBOURS, len(values) - 1)
    found = nearest(values, values, num_neighbours=number, leave_one_out=True)
    return found.indices.numpy(), (1 - found.similarities).numpy()
