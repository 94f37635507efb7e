"""``swav embed``: the features of pictures, in a file that other programs read."""

import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np

from swav.evals import Features
from swav.training.trained_run import Run, load, open_pictures

__all__ = ["Run", "embed", "load", "write_embeddings"]

SUFFIXES = (".npz", ".csv", ".parquet")


def embed(
    run: str | Path,
    data: str | None = None,
    *,
    to: str | Path,
    allow_factory: Collection[str] = (),
) -> Features:
    """Write the backbone's pooled features of every readable picture of ``data`` to a file.

    The order is that of the data; features are not normalised.

    Args:
        run: run folder.
        data: pictures; by default those of the training.
        to: ``.npz`` (arrays ``embeddings``, ``paths``, ``labels``), ``.csv`` or ``.parquet``.
        allow_factory: ``package.module:function`` that the run may name as its backbone.

    Raises:
        ValueError: if the ending of ``to`` is none of these.
    """
    target = Path(to)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: name a file that ends with {', '.join(SUFFIXES)}")
    opened = load(run, allow_factory=allow_factory)
    features = opened.features(open_pictures(opened, data))
    write_embeddings(features, target)
    return features


def write_embeddings(features: Features, path: Path) -> None:
    """Write features with their names, and their labels if they have any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = features.values.numpy()
    names = [name.encode("utf-8", "backslashreplace").decode() for name in features.names]
    if path.suffix == ".npz":
        arrays = {"embeddings": values, "paths": np.array(names)}
        if features.labels is not None:
            arrays |= {
                "labels": features.labels.numpy(),
                "classes": np.array(features.classes),
            }
        unfinished = path.with_name(f".{path.name}.unfinished.npz")
        np.savez(unfinished, **arrays)  # type: ignore[arg-type]
        unfinished.replace(path)
    elif path.suffix == ".csv":
        _write_csv(names, values, path)
    else:
        _write_parquet(names, values, path)


def _write_csv(names: list[str], values: np.ndarray, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *(f"feature_{place}" for place in range(values.shape[1]))])
        for name, row in zip(names, values, strict=True):
            writer.writerow([name, *(f"{value:.9g}" for value in row)])


def _write_parquet(names: list[str], values: np.ndarray, path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("writing .parquet needs pyarrow: pip install 'swav[parquet]'") from error
    table = pyarrow.table({"path": names, "embedding": list(values)})
    parquet.write_table(table, path)
