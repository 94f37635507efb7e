"""Which labels a cluster holds: a figure of clusters against labels."""

from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from swav.report.figures import ACCENT, INK, STYLE, PageFigure, svg_of

MOST_LABELS = 20
LEAST_WRITTEN = 0.1
"""Smaller shares are coloured and have no number."""
LONGEST = 18
"""Letters of the name of a label."""
WIDTH, ROW, LETTER, NAMES = 5.2, 0.2, 0.075, 0.5
"""Inches: the figure, a row of it, a letter above it, the numbers of the clusters beside it."""
DARKEST = 0.7
"""So that a number on it can be read."""


def clusters_and_labels(clusters: Mapping[str, Sequence[str]], *, most: int) -> PageFigure | None:
    """Return what share of each cluster has each label, None without labels.

    Args:
        clusters: the labels of the members of each cluster, the largest cluster first.
        most: clusters that are shown.
    """
    totals = Counter(label for labels in clusters.values() for label in labels)
    shown = [label for label, _ in totals.most_common(MOST_LABELS)]
    rows = [(name, Counter(labels)) for name, labels in clusters.items() if labels][:most]
    if not rows:
        return None
    titles = [_short(label) for label in shown]
    above = LETTER * max(len(title) for title in titles) + 0.1
    height = above + ROW * len(rows)
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "clusters-and-labels", "font.size": 8}):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((NAMES / WIDTH, 0, 1 - NAMES / WIDTH, 1 - above / height))
        axes.set(xlim=(0, len(shown)), ylim=(len(rows), 0))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.set_xticks([0.5 + place for place in range(len(shown))], titles, rotation=90)
        axes.set_yticks([0.5 + place for place in range(len(rows))], [name for name, _ in rows])
        for row, (_, labels) in enumerate(rows):
            for column, label in enumerate(shown):
                share = labels[label] / labels.total()
                if share:
                    place = (column + 0.04, row + 0.04)
                    axes.add_patch(
                        Rectangle(place, 0.92, 0.92, color=ACCENT, alpha=DARKEST * share, lw=0)
                    )
                if share >= LEAST_WRITTEN:
                    text = axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}")
                    text.set(ha="center", va="center", color=INK, fontsize=7)
        svg = svg_of(figure, f"Labels of {len(rows)} clusters")
    caption = "Per cent of the pictures of each cluster, a row each, that have each label."
    if len(totals) > len(shown):
        caption += f" The {len(shown)} commonest of {len(totals)} labels are shown."
    return PageFigure(title="Clusters and labels", caption=caption, svg=svg)


def _short(label: str) -> str:
    text = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}\u2026"
    return text.replace("$", r"\$")
