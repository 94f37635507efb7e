"""What a run leaves behind as tables: embeddings, clusters, the views of a few pictures."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from swav.config import UsageError
from swav.run_folder import layout
from swav.run_folder.atomic import replacing

EMBEDDINGS_SUFFIXES = (".npz", ".csv", ".parquet")


def check_embeddings_path(path: Path) -> None:
    """Raise a ValueError unless embeddings can be written to a file of this ending."""
    if path.suffix not in EMBEDDINGS_SUFFIXES:
        endings = ", ".join(EMBEDDINGS_SUFFIXES)
        raise UsageError(f"{path}: name a file that ends with {endings}")


def write_embeddings(
    path: Path,
    values: Float[np.ndarray, "images features"],
    names: Sequence[str],
    labels: Int[np.ndarray, " images"] | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write embeddings with the pictures' names; labels go into ``.npz`` alone.

    Raises:
        ValueError: if the ending of ``path`` is not one of ``EMBEDDINGS_SUFFIXES``.
    """
    check_embeddings_path(path)
    names = _printable(names)
    with replacing(path) as unfinished:
        if path.suffix == ".npz":
            arrays = {"embeddings": values, "paths": np.array(names)}
            if labels is not None:
                arrays |= {"labels": labels, "classes": np.array(classes)}
            np.savez(unfinished, **arrays)  # type: ignore[arg-type]
        elif path.suffix == ".csv":
            header = ["path", *(f"feature_{column}" for column in range(values.shape[1]))]
            rows = zip(names, values, strict=True)
            # nine digits bring every float32 back exactly
            lines = ([name, *(f"{value:.9g}" for value in row)] for name, row in rows)
            _write_csv(unfinished, header, lines)
        else:
            _write_parquet(unfinished, names, values)


def write_clusters(
    path: Path,
    names: Sequence[str],
    clusters: Int[np.ndarray, " images"],
    probabilities: Float[np.ndarray, " images"],
) -> None:
    """Write path, cluster and probability of every picture as CSV."""
    rows = (
        [name, int(cluster), f"{probability:.6f}"]
        for name, cluster, probability in zip(
            _printable(names), clusters, probabilities, strict=True
        )
    )
    with replacing(path) as unfinished:
        _write_csv(unfinished, ["path", "cluster", "probability"], rows)


def write_cluster_probabilities(
    path: Path,
    clusters: Int[np.ndarray, "images kept"],
    probabilities: Float[np.ndarray, "images kept"],
) -> None:
    """Write the most probable clusters of every picture, the most probable first."""
    with replacing(path) as unfinished:
        np.savez(
            unfinished,
            clusters=clusters.astype(np.int32),
            probabilities=probabilities.astype(np.float16),  # 51 MB for 1.28 M images of 20 each
        )


def write_views(
    run_folder: Path,
    names: Sequence[str],
    groups: Mapping[str, UInt8[np.ndarray, "images views height width channels"]],
) -> None:
    """Write the views of a few pictures, those of each size as an array."""
    with replacing(run_folder / layout.VIEWS) as unfinished:
        arrays = {"names": np.array(_printable(names)), **groups}
        np.savez_compressed(unfinished, **arrays)  # type: ignore[arg-type]


def _printable(names: Iterable[str]) -> list[str]:
    """Return file names as text: bytes that are not UTF-8 become escapes."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)  # which ends lines itself, hence newline=""
        writer.writerow(header)
        writer.writerows(rows)


def _write_parquet(path: Path, names: list[str], values: np.ndarray) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("writing .parquet needs pyarrow: pip install 'swav[parquet]'") from error
    table = pyarrow.table({"path": names, "embedding": list(values)})
    parquet.write_table(table, path)
