"""``swav cluster``: which cluster every picture belongs to, and how surely."""

from collections.abc import Sequence
from json import dumps
from os import PathLike
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from swav.data.sources.open import Data
from swav.training.clusterings import DUPLICATES, Clustered
from swav.training.trained_run import load

SHOWN = 40
"""Clusters of the table; the file and --json have all."""


def cluster(
    run: str | PathLike[str],
    data: Data | None = None,
    /,
    *,
    to: str | Path | None = None,
    k: int | Literal["auto"] | None = None,
    match: bool = True,
    thumbnails: int = 0,
    device: str = "auto",
    json: bool = False,
    allow_factory: Sequence[str] = (),
) -> Clustered:
    """Write the cluster of every readable picture, and its probability, to a file.

    A picture's cluster is its most probable prototype, or with --k its most probable centre; it
    does not depend on the other pictures. Centres are those of k-means on the embeddings of the
    training's pictures, where the prototypes lie (of more than 100,000 on so many, spread evenly),
    and probabilities the softmax of the cosines to them over the method's temperature. A file
    ``.npz`` of the same name beside it holds the 20 most probable clusters of each picture (arrays
    ``clusters``, ``probabilities``). A method without prototypes gets k-means on the features:
    with --k on those of the training, without on those of these very pictures, and the cosine to
    the centre as the probability.

    Parquet has the columns of ``swav embed`` too, and ``distance``: 1 - cosine to the mean of the
    normalised features of the cluster's pictures in the file.

    Numbers are those of the prototypes, or with --k by size among the training's pictures, and
    stay between calls. After a retraining
    those of the same clustering are kept, by the pictures that both have. Names that
    ``names.csv`` in the run folder gives to clusters (columns clustering, such as prototypes or
    k=12, cluster, name) become a column.

    Args:
        run: run folder.
        data: pictures; by default those of the training.
        to: ``.csv``, ``.parquet``, or a folder (there already, or ending with a slash) for a CSV
            file and links to the pictures of each cluster; by default ``clusters.csv`` in the run
            folder, of other pictures ``DATA-clusters.csv`` in this one.
        k: number of clusters, or auto for that after which merging prototypes costs most.
        match: whether numbers of an earlier network are kept; --no-match gives them anew.
        thumbnails: longest side in pixels of the pictures (JPEG) in ``.parquet``; 0 for none.
        device: auto, cpu, cuda, mps, or one device such as cuda:1.
        json: print the summary as JSON.
        allow_factory: ``package.module:function`` that the run may name as its backbone.

    Raises:
        ValueError: if there cannot be so many clusters, or a file is damaged.
    """
    opened = load(run, device=device, allow_factory=allow_factory)
    clustered = opened.cluster(data, to=to, k=k, match=match, thumbnails=thumbnails)
    if json:
        print(dumps(clustered.to_json(), indent=2))
    else:
        _print(clustered)
        rows = sum(row.pictures for row in clustered.clusters)
        print(f"{rows:,} rows written to {clustered.path}")
    return clustered


def _print(clustered: Clustered) -> None:
    """Print the largest clusters as a table, and what is to be known of them."""
    named = any(cluster.name for cluster in clustered.clusters)
    columns = ("cluster", *(("name",) if named else ()), "pictures", "confidence")
    table = Table(
        *(Column(column, no_wrap=True) for column in columns),
        title=f"{clustered.path} ({clustered.clustering})",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for row in clustered.clusters[:SHOWN]:
        name = (escape(row.name),) if named else ()
        table.add_row(str(row.cluster), *name, str(row.pictures), f"{row.confidence:.3f}")
    Console().print(table)
    if len(clustered.clusters) > SHOWN:
        print(f"and {len(clustered.clusters) - SHOWN} smaller clusters")
    if clustered.duplicates:
        print(
            f"{clustered.duplicates} of {clustered.prototypes} prototypes are duplicates: another "
            f"is nearly equal (cosine of at least {DUPLICATES})"
        )
    if clustered.matched_with:
        print(f"numbers are those of {clustered.matched_with}:")
        for match in clustered.matches:
            print(f"  {match.old} -> {match.new} by size, {100 * match.kept:.0f} % kept")
        known = {match.old for match in clustered.matches}
        print(f"  {sum(row.cluster not in known for row in clustered.clusters)} new")
