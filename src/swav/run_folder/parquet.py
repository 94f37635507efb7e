"""Pictures as Parquet, with the columns and types that other programs look for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from swav.run_folder.atomic import replacing

ROWS = 10_000
"""Written at a time."""


@dataclass(frozen=True, kw_only=True)
class ClusterColumns:
    """The cluster of every picture."""

    clusters: Int[np.ndarray, " images"]
    names: Sequence[str | None]
    """What the clusters are called, None without a name."""
    probabilities: Float[np.ndarray, " images"]
    distances: Float[np.ndarray, " images"]
    """To the middle of the cluster."""
    clustering: str
    """Which one this is: ``prototypes``, ``k=12``."""


@dataclass(frozen=True, kw_only=True)
class PictureTable:
    """What is written of pictures, a row each."""

    names: Sequence[str]
    embeddings: Float[np.ndarray, "images features"]
    network: str
    """Digest of the weights that the embeddings are of."""
    neighbours: tuple[Int[np.ndarray, "images _"], Float[np.ndarray, "images _"]] | None = None
    """Rows of the nearest other pictures, and the distances to them."""
    x_y: Float[np.ndarray, "images 2"] | None = None
    """Places on a map, from 0 to 1."""
    clusters: ClusterColumns | None = None
    thumbnail: Callable[[str], bytes | None] | None = None
    """A small JPEG of the picture of a name, None if there is none to be had."""


def write_parquet(path: Path, table: PictureTable) -> None:
    """Write a table of pictures, some rows at a time.

    Raises:
        ValueError: if pyarrow is not installed.
    """
    pyarrow, parquet = pyarrow_and_parquet()
    about = {"swav.network": table.network}
    if table.clusters is not None:
        about["swav.clustering"] = table.clusters.clustering
    with replacing(path) as unfinished:
        batches = (pyarrow.table(columns) for columns in _batches(pyarrow, table))
        first = next(batches)
        schema = first.schema.with_metadata(about)
        with parquet.ParquetWriter(unfinished, schema) as writer:
            writer.write_table(first.cast(schema))
            for batch in batches:
                writer.write_table(batch.cast(schema))


def pyarrow_and_parquet() -> tuple[Any, Any]:
    """Return both modules, or raise a ValueError that says how to get them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("writing .parquet needs pyarrow: pip install 'swav[parquet]'") from error
    return pyarrow, parquet


def _batches(pyarrow: Any, table: PictureTable) -> Iterator[dict[str, Any]]:
    for start in range(0, max(len(table.names), 1), ROWS):
        some = slice(start, start + ROWS)
        columns = {"file_name": pyarrow.array(table.names[some], pyarrow.string())}
        if table.thumbnail is not None:
            columns["image"] = _images(pyarrow, table.names[some], table.thumbnail)
        values = np.ascontiguousarray(table.embeddings[some], dtype=np.float32)
        columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(values.reshape(-1)), values.shape[1]
        )
        if table.neighbours is not None:
            columns["neighbors"] = _neighbours(pyarrow, *(part[some] for part in table.neighbours))
        if table.x_y is not None:
            columns |= {axis: pyarrow.array(table.x_y[some, i]) for i, axis in enumerate("xy")}
        if table.clusters is not None:
            columns |= _clusters(pyarrow, table.clusters, some)
        yield columns


def _images(pyarrow: Any, names: Sequence[str], thumbnail: Callable[[str], bytes | None]) -> Any:
    fields = [pyarrow.field("bytes", pyarrow.binary()), pyarrow.field("path", pyarrow.string())]
    images = [{"bytes": thumbnail(name), "path": name} for name in names]
    return pyarrow.array(images, pyarrow.struct(fields))


def _neighbours(
    pyarrow: Any, rows: Int[np.ndarray, "images _"], distances: Float[np.ndarray, "images _"]
) -> Any:
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    lists = [
        pyarrow.ListArray.from_arrays(pyarrow.array(ends), pyarrow.array(values.reshape(-1)))
        for values in (rows.astype(np.int64), distances.astype(np.float32))
    ]
    return pyarrow.StructArray.from_arrays(lists, ["ids", "distances"])


def _clusters(pyarrow: Any, clusters: ClusterColumns, some: slice) -> dict[str, Any]:
    return {
        "cluster": pyarrow.array(clusters.clusters[some].astype(np.int64)),
        "cluster_name": pyarrow.array(clusters.names[some], pyarrow.string()),
        "probability": pyarrow.array(clusters.probabilities[some].astype(np.float32)),
        "distance": pyarrow.array(clusters.distances[some].astype(np.float32)),
    }
