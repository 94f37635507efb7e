"""``swav embed``: the features of pictures, in a file that other programs read."""

from collections.abc import Sequence
from pathlib import Path

from swav.evals import Features
from swav.run_folder.writers import check_embeddings_path
from swav.training.trained_run import load


def embed(
    run: str | Path,
    data: str | None = None,
    /,
    *,
    to: str | Path,
    device: str = "auto",
    allow_factory: Sequence[str] = (),
) -> Features:
    """Write the backbone's pooled features of every readable picture of ``data`` to a file.

    The order is that of the data; features are not normalised.

    Args:
        run: run folder.
        data: pictures; by default those of the training.
        to: ``.npz`` (arrays ``embeddings``, ``paths``, ``labels``), ``.csv`` or ``.parquet``.
        device: auto, cpu, cuda, mps, or one device such as cuda:1.
        allow_factory: ``package.module:function`` that the run may name as its backbone.

    Raises:
        ValueError: if the ending of ``to`` is none of these.
    """
    check_embeddings_path(Path(to))  # before the network is loaded
    return load(run, device=device, allow_factory=allow_factory).embed(data, to=to)
