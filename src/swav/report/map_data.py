"""What the script of the page reads: points of the map as JSON, their thumbnails as one sheet."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from swav.ops import neighbours
from swav.report.map_positions import Positions, positions
from swav.report.thumbnails import Album, data_address
from swav.report.wording import printable
from swav.run_folder.clusterings import clustering_in_run, is_clustering, names_in_run
from swav.run_folder.readers import Absent, Embeddings, read_clusters

NUM_NEIGHBOURS = 8
LARGE, SMALL = 64, 32
"""Sides of thumbnails, in pixels: of maps of up to ``MANY`` pictures, and of larger ones."""
MANY = 5000
TINY = 16
"""Thumbnails up to this side are kept without loss."""


@dataclass(frozen=True, kw_only=True)
class PictureMap:
    """The map as the page holds it."""

    rule: str
    points: int
    data: Markup
    """JSON that can stand inside an element."""
    sheet: str
    """A ``data:`` address, empty without pictures."""


def picture_map(
    run_folder: Path, embeddings: Embeddings, album: Album, *, most: int | None, served: bool
) -> PictureMap:
    """Return the map of a run.

    Args:
        run_folder: the run.
        embeddings: its own.
        album: its pictures.
        most: pictures on the map, by default as many as it has or 2,000.
        served: whether ``swav view`` serves the page, which then can save and open pictures.

    Raises:
        Absent: if there are too few pictures.
    """
    where = positions(run_folder, embeddings, most)
    paths = [embeddings.paths[row] for row in where.rows.tolist()]
    sheet, side = _sheet(paths, album)
    data = {
        "names": [printable(path) for path in paths],
        "rows": where.rows.tolist(),
        "x": (where.x_y[:, 0] * 10_000).round().astype(int).tolist(),
        "y": (where.x_y[:, 1] * 10_000).round().astype(int).tolist(),
        "near": _neighbours(embeddings, where),
        **_clusters(run_folder, paths),
        **_labels(embeddings, where),
        "side": side,
        "pictures": [album.index(path) for path in paths] if served else [],
        "served": served,
    }
    return PictureMap(rule=where.rule, points=len(paths), data=json_in_page(data), sheet=sheet)


def json_in_page(data: Mapping[str, Any]) -> Markup:
    """Return JSON that no element of a page can be closed or begun with."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _neighbours(embeddings: Embeddings, where: Positions) -> list[list[int]]:
    """Return the nearest points of each point, by cosine among those of the map."""
    values = torch.from_numpy(embeddings.values[where.rows])
    wanted = min(NUM_NEIGHBOURS, len(values) - 1)
    near = neighbours.nearest(values, values, num_neighbours=wanted, leave_one_out=True)
    found: list[list[int]] = near.indices.tolist()
    return found


def _clusters(run_folder: Path, paths: Sequence[str]) -> dict[str, Any]:
    """Return the cluster of each point (-1 for none), their names, and what clustering it is."""
    try:
        clusters = read_clusters(run_folder)
    except Absent:
        clusters = []
    by_path = {
        printable(path): int(cluster.name)
        for cluster in clusters
        if cluster.name.isdecimal()
        for path in cluster.paths
    }
    clustering = clustering_in_run(run_folder)
    return {
        "cluster": [by_path.get(printable(path), -1) for path in paths],
        "clustering": clustering if is_clustering(clustering) else "",
        "called": {number: printable(name) for number, name in names_in_run(run_folder).items()},
    }


def _labels(embeddings: Embeddings, where: Positions) -> dict[str, Any]:
    """Return the label of each point and the names of the labels."""
    if embeddings.labels is None:
        return {"label": [], "classes": []}
    return {
        "label": embeddings.labels[where.rows].tolist(),
        "classes": [printable(name) for name in embeddings.classes],
    }


def _sheet(paths: Sequence[str], album: Album) -> tuple[str, int]:
    """Return all thumbnails in a square of squares, row by row, and the side of one."""
    side = LARGE if len(paths) <= MANY else SMALL
    thumbnails = [album.square(path, side=side) for path in paths]
    known = [thumbnail for thumbnail in thumbnails if thumbnail is not None]
    if not known:
        return "", side
    side = max(len(thumbnail) for thumbnail in known)
    across = math.ceil(math.sqrt(len(paths)))
    sheet = np.zeros((math.ceil(len(paths) / across) * side, across * side, 3), dtype=np.uint8)
    for index, thumbnail in enumerate(thumbnails):
        if thumbnail is not None:
            top, left = index // across * side, index % across * side
            sheet[top : top + side, left : left + side] = _grown(thumbnail, side)
    quality = 82 if len(paths) <= MANY else 65
    return data_address(Image.fromarray(sheet), lossless=side <= TINY, quality=quality), side


def _grown(
    thumbnail: UInt8[np.ndarray, "height width channels"], side: int
) -> UInt8[np.ndarray, "side side channels"]:
    """Return a smaller thumbnail at the size of the others."""
    if len(thumbnail) == side:
        return thumbnail
    return np.asarray(Image.fromarray(thumbnail).resize((side, side), Image.Resampling.NEAREST))
