"""What a notebook shows of a run: what it is, its scores, and the picture of its map."""

import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from swav.report.map_positions import positions
from swav.report.wording import evaluation_title, headline, printable, score
from swav.run_folder import layout
from swav.run_folder.readers import (
    Absent,
    Evaluation,
    read_clusters,
    read_embeddings,
    read_evaluations,
    read_run,
)

SIDE_INCHES = 4.0


def notebook_page(run_folder: Path) -> str:
    """Return HTML that needs nothing else; what a run does not have yet is left out."""
    try:
        title = headline(read_run(run_folder))
    except Absent:
        title = "A run without its record"
    try:
        evaluations, _ = read_evaluations(run_folder)
    except Absent:
        evaluations = []
    try:
        picture = f'<img alt="Map of the pictures" src="{_address(map_picture(run_folder))}">'
    except Absent:
        picture = ""
    report = escape(printable(run_folder / layout.REPORT))
    return (
        f"<div><p><b>{escape(title)}</b></p>{_scores(evaluations)}{picture}"
        f"<p><code>{report}</code></p></div>"
    )


def map_picture(run_folder: Path) -> bytes:
    """Return the map of a run as a PNG file, a colour for each cluster, -1 grey.

    Raises:
        Absent: if it has no embeddings, or too few.
    """
    embeddings = read_embeddings(run_folder)
    where = positions(run_folder, embeddings)
    paths = [embeddings.paths[row] for row in where.rows.tolist()]
    return _drawn(where.x_y, _places(run_folder, paths))


def _places(run_folder: Path, paths: Sequence[str]) -> Int[np.ndarray, " images"]:
    """Return the place of each picture's cluster by size, -1 for none."""
    try:
        clusters = read_clusters(run_folder)
    except Absent:
        clusters = []
    place = {path: number for number, each in enumerate(clusters) for path in each.paths}
    return np.array([place.get(path, -1) for path in paths], dtype=np.int64)


def _drawn(x_y: Float[np.ndarray, "images 2"], places: Int[np.ndarray, " images"]) -> bytes:
    figure = Figure(figsize=(SIDE_INCHES, SIDE_INCHES), layout="tight")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    colours = np.where(places < 0, "0.7", [f"C{place % 10}" for place in places])
    axes.scatter(x_y[:, 0], x_y[:, 1], s=4, c=colours.tolist(), linewidths=0)
    axes.invert_yaxis()  # as in the report
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=100)
    return written.getvalue()


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _scores(evaluations: Sequence[Evaluation]) -> str:
    """Return the leading number of every evaluation, that of the untrained network beside it."""
    rows = []
    for evaluation in evaluations:
        lead = evaluation.lead
        if lead is None:
            continue
        about = evaluation.about[lead]
        before = evaluation.baselines.get("random", {}).get(lead)
        untrained = "" if before is None else score(about, before)
        cells = (evaluation_title(evaluation), about.title)
        numbers = (score(about, evaluation.metrics[lead]), untrained)
        rows.append("".join(f"<td>{escape(printable(cell))}</td>" for cell in (*cells, *numbers)))
    if not rows:
        return ""
    titles = "<th></th><th></th><th>trained</th><th>untrained</th>"
    return f"<table><tr>{titles}</tr><tr>{'</tr><tr>'.join(rows)}</tr></table>"
