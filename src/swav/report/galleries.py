"""The sections of the page that show pictures: views, clusters, nearest neighbours."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from swav.ops import neighbours
from swav.report.figures import PageFigure, cluster_sizes
from swav.report.heat_map import clusters_and_labels
from swav.report.thumbnails import Album, Tile, picture_tile
from swav.report.wording import count, printable
from swav.run_folder.clusterings import names_in_run
from swav.run_folder.readers import (
    Absent,
    Cluster,
    Embeddings,
    ViewGroup,
    read_clusters,
    read_views,
)

NUM_SHEETS, NUM_MEMBERS, NUM_FAR = 24, 12, 4
NUM_QUERIES, NUM_NEIGHBOURS = 10, 8
NUM_VIEWED, NUM_VIEWS = 6, 12
VIEW_WIDTH = 108
"""Of the largest views on the page, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """A picture and its views, one row of tiles per size."""

    original: Tile
    groups: tuple[tuple[Tile, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Views:
    """The augmented views of a few pictures."""

    sizes: tuple[str, ...]
    widths: tuple[int, ...]
    """On the page, in pixels, in proportion to the sizes."""
    original_width: int
    rows: tuple[Viewed, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The most typical members of a cluster."""

    number: str
    name: str
    """The number, and what people call it."""
    size: str
    remark: str
    tiles: tuple[Tile, ...]
    far: tuple[Tile, ...]
    """Members that the cluster is least sure of."""
    tightness: float | None
    """Mean cosine of its members to their middle; None where features are absent."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """The largest clusters as contact sheets."""

    summary: str
    facts: tuple[tuple[str, str], ...]
    sizes: PageFigure
    labels: PageFigure | None
    """The labels that each holds."""
    sheets: tuple[Sheet, ...]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A picture and its cosine to the query."""

    tile: Tile
    similarity: str


@dataclass(frozen=True, kw_only=True)
class Query:
    """A sample picture and what lies nearest to it."""

    tile: Tile
    remark: str
    neighbours: tuple[Neighbour, ...]


def views(run_folder: Path, album: Album) -> Views:
    """Return the views of ``pictures/views.npz``."""
    groups = read_views(run_folder)
    rows = [
        Viewed(
            original=album.tile(name),
            groups=tuple(_view_tiles(group, row) for group in groups),
        )
        for row, name in enumerate(groups[0].names[:NUM_VIEWED])
    ]
    heights_widths = [group.views.shape[2:4] for group in groups]
    largest = max(max(size) for size in heights_widths)
    return Views(
        sizes=tuple(f"{height} \u00d7 {width}" for height, width in heights_widths),
        widths=tuple(max(round(VIEW_WIDTH * width / largest), 36) for _, width in heights_widths),
        original_width=VIEW_WIDTH,
        rows=tuple(rows),
    )


def clusters(run_folder: Path, album: Album, embeddings: Embeddings | None) -> Clusters:
    """Return contact sheets of the largest clusters of ``clusters.csv``.

    Labels that stand beside the ``embeddings`` say what most of a cluster is.
    """
    every = read_clusters(run_folder)
    classes, names = _classes_by_path(embeddings), names_in_run(run_folder)
    tight = _tightness(every, embeddings)
    largest, dropped = every[:NUM_SHEETS], every[NUM_SHEETS:]
    summary = f"All {count(len(every), 'cluster')} are shown" if len(every) > 1 else "One cluster"
    if dropped:
        num_pictures = sum(len(cluster.paths) for cluster in dropped)
        summary = (
            f"The {len(largest)} largest of {len(every):,} clusters are shown; "
            f"the other {len(dropped):,} hold {count(num_pictures, 'picture')}"
        )
    sheets = [
        Sheet(
            number=printable(cluster.name),
            name=printable(_with_name(cluster.name, names)),
            size=count(len(cluster.paths), "picture"),
            remark=_majority([classes[path] for path in cluster.paths if path in classes]),
            tiles=tuple(album.tile(path) for path in cluster.paths[:NUM_MEMBERS]),
            far=tuple(album.tile(path) for path in cluster.paths[NUM_MEMBERS:][-NUM_FAR:]),
            tightness=tight.get(cluster.name),
        )
        for cluster in largest
    ]
    sizes = [len(cluster.paths) for cluster in every]
    facts = (
        ("Clusters", f"{len(sizes):,}"),
        ("Largest", f"{sizes[0]:,}"),
        ("Median", f"{np.median(sizes):,.0f}"),
        ("Smallest", f"{sizes[-1]:,}"),
    )
    figure = cluster_sizes(sizes, [printable(cluster.name) for cluster in every])
    held = {
        printable(cluster.name): [classes[path] for path in cluster.paths if path in classes]
        for cluster in every
    }
    return Clusters(
        summary=f"{summary}.",
        facts=facts,
        sizes=figure,
        labels=clusters_and_labels(held, most=NUM_SHEETS),
        sheets=tuple(sheets),
    )


def _tightness(clusters: Sequence[Cluster], embeddings: Embeddings | None) -> dict[str, float]:
    """Return the mean cosine of the members of each cluster to their middle."""
    if embeddings is None:
        return {}
    rows = {path: row for row, path in enumerate(embeddings.paths)}
    found = {}
    for cluster in clusters:
        members = [rows[path] for path in cluster.paths if path in rows]
        if members:
            unit = F.normalize(torch.from_numpy(embeddings.values[members]).float(), dim=1)
            # the mean of cosines to the direction of the mean is the length of the mean
            found[cluster.name] = float(unit.mean(dim=0).norm())
    return found


def nearest_pictures(embeddings: Embeddings, album: Album) -> list[Query]:
    """Return the nearest neighbours of sample pictures that lie evenly through the set."""
    num_images = len(embeddings.paths)
    if num_images < 2:
        raise Absent("One picture alone has no neighbours.")
    # evenly and not at random: the page of a run is the same each time
    spaced = np.linspace(0, num_images - 1, min(NUM_QUERIES, num_images) + 2)[1:-1]
    queries = np.unique(spaced.round().astype(np.int64))
    values = torch.from_numpy(embeddings.values)
    # One more than wanted, for the nearest to a picture is itself.
    num_neighbours = min(NUM_NEIGHBOURS + 1, num_images)
    nearest = neighbours.nearest(values[queries], values, num_neighbours=num_neighbours)
    return [
        _query(embeddings, int(index), dict(zip(rows, cosines, strict=True)), album)
        for index, rows, cosines in zip(
            queries, nearest.indices.tolist(), nearest.similarities.tolist(), strict=True
        )
    ]


def _query(embeddings: Embeddings, index: int, cosines: Mapping[int, float], album: Album) -> Query:
    """Return the tiles of one query; ``cosines`` are of the nearest rows, itself among them."""
    others = [row for row in cosines if row != index][:NUM_NEIGHBOURS]
    remark = ""
    if embeddings.labels is not None:
        label = int(embeddings.labels[index])
        same = sum(int(embeddings.labels[row]) == label for row in others)
        remark = f"{_class_name(label, embeddings.classes)}: {same} of {len(others)} the same"
    return Query(
        tile=album.tile(embeddings.paths[index]),
        remark=remark,
        neighbours=tuple(
            Neighbour(tile=album.tile(embeddings.paths[row]), similarity=f"{cosines[row]:.3f}")
            for row in others
        ),
    )


def _view_tiles(group: ViewGroup, row: int) -> tuple[Tile, ...]:
    name = group.names[row]
    some = group.views[row][:NUM_VIEWS]
    return tuple(picture_tile(name, view, side=2 * VIEW_WIDTH, square=False) for view in some)


def _classes_by_path(embeddings: Embeddings | None) -> dict[str, str]:
    """Return the class name of each picture that has one; labels below zero mean unknown."""
    if embeddings is None or embeddings.labels is None:
        return {}
    return {
        path: _class_name(label, embeddings.classes)
        for path, label in zip(embeddings.paths, embeddings.labels.tolist(), strict=True)
        if label >= 0
    }


def _with_name(cluster: str, names: Mapping[int, str]) -> str:
    name = names.get(int(cluster)) if cluster.isdecimal() else None
    return f"{cluster}: {name}" if name else cluster


def _majority(classes: Sequence[str]) -> str:
    """Return the commonest class and its share."""
    if not classes:
        return ""
    name, times = Counter(classes).most_common(1)[0]
    return f"{100 * times / len(classes):.0f}\u00a0% {name}"


def _class_name(label: int, classes: Sequence[str]) -> str:
    return printable(classes[label]) if 0 <= label < len(classes) else f"label {label}"
