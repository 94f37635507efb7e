"""What a run leaves behind as tables: embeddings, clusters, the views of a few pictures."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from swav.config import UsageError
from swav.run_folder import layout
from swav.run_folder.atomic import replacing
from swav.run_folder.clusterings import KeptClustering
from swav.run_folder.parquet import pyarrow_and_parquet
from swav.run_folder.readers import FORMULA_STARTS, array_names

EMBEDDINGS_SUFFIXES = (".npz", ".csv", ".parquet")
CLUSTERS_SUFFIXES = (".csv", ".parquet")


def check_embeddings_path(path: Path) -> None:
    """Raise a ValueError unless embeddings can be written to a file of this ending."""
    if path.suffix not in EMBEDDINGS_SUFFIXES:
        endings = ", ".join(EMBEDDINGS_SUFFIXES)
        raise UsageError(f"{path}: name a file that ends with {endings}")
    if path.suffix == ".parquet":
        pyarrow_and_parquet()


def write_embeddings(
    path: Path,
    values: Float[np.ndarray, "images features"],
    names: Sequence[str],
    labels: Int[np.ndarray, " images"] | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write embeddings with the pictures' names as ``.npz`` or CSV; labels into ``.npz`` alone."""
    names = printable(names)
    with replacing(path) as unfinished:
        if path.suffix == ".npz":
            arrays = {"embeddings": values, "paths": np.array(names)}
            if labels is not None:
                arrays |= {"labels": labels, "classes": np.array(classes)}
            np.savez(unfinished, **arrays)  # type: ignore[arg-type]
        else:
            header = ["path", *(f"feature_{column}" for column in range(values.shape[1]))]
            rows = zip(names, values, strict=True)
            # nine digits bring every float32 back exactly
            lines = (
                [_no_formula(name, "./"), *(f"{value:.9g}" for value in row)] for name, row in rows
            )
            _write_csv(unfinished, header, lines)


def check_clusters_path(path: Path) -> None:
    """Raise a ValueError unless clusters can be written to a file of this name, and beside it."""
    if path.suffix not in CLUSTERS_SUFFIXES:
        raise ValueError(f"{path}: name a file that ends with {', '.join(CLUSTERS_SUFFIXES)}")
    if path.suffix == ".parquet":
        pyarrow_and_parquet()
    beside = path.with_suffix(".npz")
    found = array_names(beside)
    if found and "clusters" not in found:
        raise ValueError(
            f"{beside} holds other things than clusters, and {path} would replace it: name another"
        )


def write_clusters(
    path: Path,
    names: Sequence[str],
    clusters: Int[np.ndarray, " images"],
    probabilities: Float[np.ndarray, " images"],
    called: Mapping[int, str] | None = None,
) -> None:
    """Write path, cluster and probability of every picture as CSV.

    Args:
        path: of the file.
        names: of the pictures.
        clusters: of each picture.
        probabilities: of this cluster.
        called: names of clusters; a column ``name`` is there only if there are any.
    """
    columns: dict[str, list[Any]] = {"path": printable(names), "cluster": clusters.tolist()}
    columns["probability"] = [f"{value:.6f}" for value in probabilities]
    if called:
        columns["name"] = [called.get(cluster, "") for cluster in columns["cluster"]]
    with replacing(path) as unfinished:
        columns["path"] = [_no_formula(name, "./") for name in columns["path"]]
        if called:
            columns["name"] = [_no_formula(name, "'") for name in columns["name"]]
        _write_csv(unfinished, list(columns), zip(*columns.values(), strict=True))


def write_cluster_probabilities(
    path: Path,
    clusters: Int[np.ndarray, "images kept"],
    probabilities: Float[np.ndarray, "images kept"],
    *,
    clustering: str,
    network: str,
) -> None:
    """Write the most probable clusters of every picture, the most probable first.

    Args:
        path: of the ``.npz``.
        clusters: of each picture.
        probabilities: of these.
        clustering: which one this is: ``prototypes``, ``k=12``.
        network: digest of the weights that it is of.
    """
    with replacing(path) as unfinished:
        np.savez(
            unfinished,
            clusters=clusters.astype(np.int32),
            probabilities=probabilities.astype(np.float16),  # 51 MB for 1.28 M images of 20 each
            clustering=np.array(clustering),
            network=np.array(network),
        )


def write_clustering(run_folder: Path, kept: KeptClustering) -> None:
    """Keep a clustering for later calls."""
    with replacing(layout.clustering(run_folder, kept.clustering)) as unfinished:
        np.savez_compressed(
            unfinished,
            network=np.array(kept.network),
            ids=kept.ids,
            centres=kept.centres,
            space=np.array(kept.space),
            paths=np.array(kept.paths, dtype=str),
            clusters=kept.clusters,
        )


def write_views(
    run_folder: Path,
    names: Sequence[str],
    groups: Mapping[str, UInt8[np.ndarray, "images views height width channels"]],
) -> None:
    """Write the views of a few pictures, those of each size as an array."""
    with replacing(run_folder / layout.VIEWS) as unfinished:
        arrays = {"names": np.array(printable(names)), **groups}
        np.savez_compressed(unfinished, **arrays)  # type: ignore[arg-type]


def printable(names: Iterable[str]) -> list[str]:
    """Return file names as text: bytes that are not UTF-8 become escapes."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def _no_formula(text: str, before: str) -> str:
    """Return a cell that spreadsheets do not calculate, which could open an address or a program.

    A path gets ``./``: it still names the same file, here and for every other program, and
    ``csv_path`` gives back the name. The name of a cluster, which is read from ``names.csv`` and
    never from what this writes, gets the apostrophe that spreadsheets hide.
    """
    return f"{before}{text}" if text.startswith(FORMULA_STARTS) else text


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)  # which ends lines itself, hence newline=""
        writer.writerow(header)
        writer.writerows(rows)
