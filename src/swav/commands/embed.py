"""``swav embed``: the features of pictures, in a file that other programs read."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from swav.data.sources.open import Data
from swav.evals import Features
from swav.run_folder import layout
from swav.run_folder.writers import check_embeddings_path
from swav.training.tables import named_after
from swav.training.trained_run import load


def embed(
    run: str | PathLike[str],
    data: Data | None = None,
    /,
    *,
    to: str | Path | None = None,
    thumbnails: int = 0,
    device: str = "auto",
    allow_factory: Sequence[str] = (),
) -> Features:
    """Write the backbone's pooled features of every readable picture of ``data`` to a file.

    The order is that of the data; features are not normalised. Parquet has the columns
    ``file_name``, ``embedding``, ``neighbors`` (rows of the 10 nearest other pictures and 1 -
    cosine; up to 100,000 pictures) and, with --thumbnails, ``image``; its metadata name the
    network.

    Args:
        run: run folder.
        data: pictures; by default those of the training.
        to: ``.npz`` (arrays ``embeddings``, ``paths``, ``labels``), ``.csv`` or ``.parquet``; by
            default ``DATA-embeddings.npz`` in this folder, and none for images of a program.
        thumbnails: longest side in pixels of the pictures (JPEG) in ``.parquet``; 0 for none.
        device: auto, cpu, cuda, mps, or one device such as cuda:1.
        allow_factory: ``package.module:function`` that the run may name as its backbone.

    Raises:
        ValueError: if the ending of ``to`` is none of these.
    """
    if to is not None:
        check_embeddings_path(Path(to))  # before the network is loaded
    opened = load(run, device=device, allow_factory=allow_factory)
    if to is None and (data is None or isinstance(data, str | Path)):
        to = named_after(data or opened.config.data.data, layout.EMBEDDINGS)
    features = opened.embed(data, to=to, thumbnails=thumbnails)
    if to is not None:
        print(f"{len(features.names):,} rows written to {to}")
    return features
