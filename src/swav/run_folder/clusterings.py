"""Clusterings as they are kept, found again in files, and named by people."""

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from swav.run_folder import layout
from swav.run_folder.readers import array_names, as_text, csv_path, csv_rows, read_arrays

logger = logging.getLogger(__name__)

PROTOTYPES = "prototypes"
"""The clustering by the method's own clusters; others are called ``k=12``."""

FEATURES, EMBEDDINGS = "features", "embeddings"
"""Where centres lie: among features of the network, or among embeddings, as prototypes do."""


@dataclass(frozen=True, kw_only=True)
class KeptClustering:
    """What makes a clustering, so that later calls give every picture the same number."""

    clustering: str
    network: str
    """Digest of the weights that it is of."""
    ids: Int[np.ndarray, " prototypes"]
    """The number of the cluster that each prototype, or centre, belongs to."""
    centres: Float[np.ndarray, "_ _"]
    """Of k-means; none where the clusters are groups of prototypes, as earlier versions made."""
    paths: tuple[str, ...]
    """Pictures whose clusters are known, to find the clusters again after a retraining."""
    clusters: Int[np.ndarray, " images"]
    space: str = FEATURES
    """Of the centres: unit features, or ``EMBEDDINGS`` where the method has prototypes."""


@dataclass(frozen=True, kw_only=True)
class ClusterFile:
    """The clusters that were written to a file, and what they are of."""

    clustering: str
    network: str
    by_path: Mapping[str, int]


def read_cluster_file(path: Path) -> ClusterFile | None:
    """Return what ``swav cluster`` wrote; None if that is not known, such as without the .npz."""
    beside = path.with_suffix(".npz")
    if not path.is_file() or not {"clustering", "network"} <= array_names(beside):
        return None
    arrays = read_arrays(beside, "swav cluster makes it", only=("clustering", "network"))
    try:
        by_path = _clusters_by_path(path)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, so its clusters cannot be found again: repair it, remove it, "
            "or number the clusters anew with --no-match"
        ) from error
    return ClusterFile(
        clustering=str(arrays["clustering"]), network=str(arrays["network"]), by_path=by_path
    )


def _clusters_by_path(path: Path) -> dict[str, int]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        # earlier versions called the names as CSV does
        names = "path" if "path" in parquet.read_schema(path).names else "file_name"
        columns = parquet.read_table(path, columns=[names, "cluster"]).to_pydict()
        return dict(zip(columns[names], map(int, columns["cluster"]), strict=True))
    rows = (row for row in csv_rows(path) if row["cluster"])
    return {csv_path(row["path"]): int(row["cluster"]) for row in rows}


def read_clustering(run_folder: Path, name: str) -> KeptClustering | None:
    """Return what is kept of a clustering, None where there is nothing or a damaged file."""
    path = layout.clustering(run_folder, name)
    if not {"network", "ids", "centres", "paths", "clusters"} <= array_names(path):
        return None
    arrays = read_arrays(path, "swav cluster makes it")
    return KeptClustering(
        clustering=name,
        network=str(arrays["network"]),
        ids=arrays["ids"],
        centres=arrays["centres"],
        paths=as_text(arrays["paths"]),
        clusters=arrays["clusters"],
        # earlier versions had centres of features alone
        space=str(arrays["space"]) if "space" in arrays else FEATURES,
    )


def read_cluster_names(run_folder: Path, clustering: str) -> dict[int, str]:
    """Return the names that ``names.csv`` gives to clusters of a clustering, by number.

    Raises:
        ValueError: if the file is there and damaged.
    """
    path = run_folder / layout.NAMES
    if not path.exists():
        return {}
    found: dict[tuple[str, int], str] = {}
    for line, row in enumerate(name_rows(path), start=2):
        cluster = str(row["cluster"]).strip()
        if not cluster.isdecimal():
            raise ValueError(f"{path}, line {line}: cluster {cluster!r} is no number")
        key, name = (str(row["clustering"]).strip(), int(cluster)), (row["name"] or "").strip()
        if not is_clustering(key[0]):
            raise ValueError(
                f"{path}, line {line}: clustering {key[0]!r} is neither prototypes nor such as k=12"
            )
        if key in found:
            raise ValueError(f"{path}, line {line}: cluster {cluster} of {key[0]} has two names")
        found[key] = name
    return {cluster: name for (of, cluster), name in found.items() if of == clustering and name}


def clustering_in_run(run_folder: Path) -> str:
    """Return which clustering ``clusters.csv`` holds."""
    beside = run_folder / layout.CLUSTER_PROBABILITIES
    if "clustering" in array_names(beside):
        return str(read_arrays(beside, "", only=("clustering",))["clustering"])
    return PROTOTYPES  # earlier versions had no other


def names_in_run(run_folder: Path) -> dict[int, str]:
    """Return the names of the clusters of ``clusters.csv``; a damaged ``names.csv`` has none."""
    try:
        return read_cluster_names(run_folder, clustering_in_run(run_folder))
    except ValueError as error:
        logger.warning("no names of clusters: %s", error)
        return {}


def is_clustering(name: str) -> bool:
    """Return whether clusters of a clustering of this name can have names of their own."""
    return name == PROTOTYPES or (name.startswith("k=") and name[2:].isdecimal())


def name_rows(path: Path) -> list[dict[str, str]]:
    """Return the lines of a ``names.csv``; raises ``ValueError`` if it is damaged."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets add the mark
            rows = csv.DictReader(file, strict=True)
            columns = set(rows.fieldnames or ())
            read = list(rows)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8 ({error})") from error
    if not {"clustering", "cluster", "name"} <= columns:
        raise ValueError(f"{path} needs the columns clustering, cluster, name")
    return read
