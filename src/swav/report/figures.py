"""The curves of a run as SVG that takes its colours and its letters from the page."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from swav.run_folder.atomic import write_atomically

# Colours matplotlib draws with, and the variables of page.css that replace them.
INK, MUTED, RULE = "#000001", "#000002", "#000003"
ACCENT, WARM, COOL = "#000004", "#000005", "#000006"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    WARM: "var(--warm)",
    COOL: "var(--cool)",
}
ON_WHITE = {
    INK: "#1d2025",
    MUTED: "#656b74",
    RULE: "#e2e3e0",
    ACCENT: "#2b5fb4",
    WARM: "#b4531f",
    COOL: "#2c7a5b",
}
"""The variables of page.css on white paper, for pictures in files of their own."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}

MOST_NAMES = 12
"""Below the bars of clusters."""
MOST_POINTS = 300
"""A longer curve is drawn as the means of this many stretches of steps, over their range."""

Column = Float[np.ndarray, " _"]


@dataclass(frozen=True, kw_only=True)
class PageFigure:
    """A figure of the page."""

    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve and the words at its end."""

    values: Column
    label: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Track:
    """A curve over positions of its own."""

    positions: Column
    line: Line


def curves(columns: Mapping[str, Column]) -> list[PageFigure]:
    """Return the figures that the columns of ``metrics.jsonl`` allow, the loss first."""
    drawn = (_loss(columns), _usage(columns), _learning_rate(columns), _speed(columns))
    return [picture for picture in drawn if picture is not None]


def cluster_sizes(sizes: Sequence[int], names: Sequence[str]) -> PageFigure:
    """Return the sizes of all clusters as bars, the largest first, beside an equal share.

    The horizontal axis bears the ``names``, as many as there is room for.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "cluster-sizes"}):
        figure, axes = _axes("Number of the cluster, the largest first", "Pictures")
        shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_NAMES)).astype(int))
        axes.set_xticks(shown + 1, [names[place].replace("$", r"\$") for place in shown])
        axes.bar(np.arange(1, len(sizes) + 1), sizes, width=0.8, color=ACCENT, linewidth=0)
        mean = sum(sizes) / len(sizes)
        axes.axhline(mean, color=WARM, linewidth=1.2, dashes=(4, 3))
        axes.set_xlim(0.4, len(sizes) + 0.6)
        _label_ends(axes, [(mean, f"equal share\n{mean:,.0f}", WARM)])
        svg = svg_of(figure, f"Sizes of {len(sizes)} clusters")
    caption = "Sizes of all clusters, beside what each would hold if all were equal."
    if len(names) > MOST_NAMES:
        caption += " Some of their numbers are below the bars."
    return PageFigure(title="Sizes", caption=caption, svg=svg)


def _loss(columns: Mapping[str, Column]) -> PageFigure | None:
    lines = _lines(
        columns,
        ("loss", "loss {:.3f}", ACCENT, False),
        ("ln_k", "ln K {:.3f}", WARM, True),
        ("loss_floor", "floor {:.3f}", COOL, False),
    )
    if "loss" not in columns or not lines:
        return None
    caption = "The average over each step's views."
    if "ln_k" in columns:
        caption = "ln K is the loss of a network that tells nothing apart."
    if "loss_floor" in columns:
        caption += " The floor is the entropy of the codes themselves: no prediction goes below it."
    return PageFigure(
        title="Loss", caption=caption, svg=_draw("loss", columns, lines, "Cross-entropy, nats")
    )


def _usage(columns: Mapping[str, Column]) -> PageFigure | None:
    lines = _lines(
        columns,
        ("prototypes_used", "prototypes\nused {:.3f}", ACCENT, False),
        ("code_entropy", "entropy of\ncodes {:.3f}", COOL, False),
    )
    if not lines:
        return None
    svg = _draw("codes", columns, lines, "Share of the possible", bottom=0.0, top=1.05)
    caption = (
        "Prototypes used: the share that was nearest to some picture within the last epoch. "
        "Entropy of the codes, over ln K: 0 is one prototype for each picture, 1 is all alike."
    )
    return PageFigure(title="Codes and prototypes", caption=caption, svg=svg)


def _learning_rate(columns: Mapping[str, Column]) -> PageFigure | None:
    lines = _lines(columns, ("lr", "{:.3g}", ACCENT, False))
    if not lines:
        return None
    svg = _draw("learning-rate", columns, lines, "Rate", bottom=0.0)
    caption = f"At its highest {np.nanmax(lines[0].values):.3g}."
    return PageFigure(title="Learning rate", caption=caption, svg=svg)


def _speed(columns: Mapping[str, Column]) -> PageFigure | None:
    lines = _lines(columns, ("images_per_second", "{:,.0f}", ACCENT, False))
    if not lines:
        return None
    svg = _draw("speed", columns, lines, "Pictures per second", bottom=0.0)
    caption = "Whole steps, loading and augmentation included."
    return PageFigure(title="Speed", caption=caption, svg=svg)


def side_by_side(
    name: str, title: str, caption: str, horizontal: str, tracks: Sequence[Track]
) -> PageFigure:
    """Return curves of several runs in one figure; those without a label have none at their end."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure, axes = _axes(horizontal, title)
        ends = [
            (_plot(axes, track.positions, track.line), track.line.label, track.line.colour)
            for track in tracks
        ]
        labelled = [end for end in ends if end[1]]
        _label_ends(axes, labelled)
        said = ", ".join(label for _, label, _ in labelled)
        svg = svg_of(figure, f"{title} over {horizontal.lower()}; at the end: {said}")
    return PageFigure(title=title, caption=caption, svg=svg)


def stages(
    metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> PageFigure | None:
    """Return the accuracy of a linear probe at the end of each stage, None without stages."""
    if _stage_values(metrics) is None:
        return None
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "stages"}):
        figure, said = _draw_stages(metrics, baselines)
        svg = svg_of(figure, said)
    caption = "A linear probe on the frozen network, at the end of each of its stages."
    return PageFigure(title="Layer by layer", caption=caption, svg=svg)


def write_stages(
    metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], path: Path
) -> None:
    """Write the same as a file of its own, on white; nothing without stages."""
    if _stage_values(metrics) is None:
        return
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "stages", "svg.fonttype": "path"}):
        figure, _ = _draw_stages(metrics, baselines)
        written = io.StringIO()
        figure.savefig(written, format="svg", facecolor="white", metadata={"Date": None})
    svg = written.getvalue()
    for colour, visible in ON_WHITE.items():
        svg = svg.replace(colour, visible)
    write_atomically(path, svg)


def _draw_stages(
    metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> tuple[Figure, str]:
    """Return the figure, and what it says in words."""
    lines = {"this run": (_stage_values(metrics), ACCENT, False)}
    lines["start, frozen"] = (_stage_values(baselines.get("start", {})), WARM, False)
    lines["untrained"] = (_stage_values(baselines.get("random", {})), COOL, False)
    pixels = baselines.get("pixels", {}).get("top1")
    trained = lines["this run"][0]
    if pixels is not None and trained is not None:
        lines["raw pixels"] = (np.full(len(trained), pixels), MUTED, True)
    figure, axes = _axes("Stage", "Top-1 accuracy, %")
    ends = []
    for name, (values, colour, dashed) in lines.items():
        if values is None:
            continue
        label = f"{name}\n{100 * values[-1]:.1f}"
        line = Line(values=100 * values, label=label, colour=colour, dashed=dashed)
        end = _plot(axes, np.arange(1, len(values) + 1, dtype=np.float64), line)
        ends.append((end, label, colour))
    _label_ends(axes, ends)
    said = ", ".join(label.replace("\n", " ") for _, label, _ in ends)
    return figure, f"Top-1 accuracy over stages; at the last: {said}"


def _stage_values(metrics: Mapping[str, float]) -> Column | None:
    """Return ``stage1``, ``stage2``, ... as far as they go."""
    values: list[float] = []
    while f"stage{len(values) + 1}" in metrics:
        values.append(metrics[f"stage{len(values) + 1}"])
    return np.array(values, dtype=np.float64) if values else None


def _lines(columns: Mapping[str, Column], *options: tuple[str, str, str, bool]) -> list[Line]:
    """Return a line for each column that has a finite value; its label holds the last one."""
    lines = []
    for name, label, colour, dashed in options:
        values = columns.get(name, np.zeros(0))
        finite = values[np.isfinite(values)]
        if len(finite):
            text = label.format(float(finite[-1]))
            lines.append(Line(values=values, label=text, colour=colour, dashed=dashed))
    return lines


def _draw(
    name: str,
    columns: Mapping[str, Column],
    lines: Sequence[Line],
    unit: str,
    *,
    bottom: float | None = None,
    top: float | None = None,
) -> Markup:
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure, axes = _axes("Step", unit)
        ends = []
        for line in lines:
            ends.append((_plot(axes, columns["step"], line), line.label, line.colour))
        axes.set_ylim(bottom=bottom, top=top)
        axes.margins(x=0.01)
        _label_ends(axes, ends)
        said = ", ".join(line.label.replace("\n", " ") for line in lines)
        return svg_of(figure, f"{unit} over steps; at the end: {said}")


def _axes(horizontal: str, vertical: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 2.75))
    axes = figure.add_axes((0.1, 0.165, 0.7, 0.725))
    axes.set_xlabel(horizontal)
    axes.set_title(vertical, loc="left", x=-0.143, color=MUTED, fontsize=10, pad=9)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick_label))
    return figure, axes


def _tick_label(value: float, _: int | None) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _plot(axes: Axes, steps: Column, line: Line) -> float:
    """Draw one curve and return the height of its end."""
    finite = np.isfinite(line.values) & np.isfinite(steps)
    steps, values = steps[finite], line.values[finite]
    if not len(values):
        return 0.0
    # means hide spikes, so the range is drawn behind them
    if len(values) > MOST_POINTS:
        stretches = np.array_split(values, MOST_POINTS)
        low, high = ([pick(stretch) for stretch in stretches] for pick in (np.min, np.max))
        steps = np.array([stretch.mean() for stretch in np.array_split(steps, MOST_POINTS)])
        values = np.array([stretch.mean() for stretch in stretches])
        axes.fill_between(steps, low, high, color=line.colour, alpha=0.18, linewidth=0)
    (drawn,) = axes.plot(steps, values, color=line.colour)
    if line.dashed:
        drawn.set(dashes=(4, 3), linewidth=1.2)
    if len(values) == 1:
        drawn.set_marker("o")
    return float(values[-1])


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each label right of the axes at the height of its curve's end, without overlap."""
    low, high = axes.get_ylim()
    heights = [(end - low) / (high - low) for end, _, _ in ends]
    spans = [0.085 * (label.count("\n") + 1) for _, label, _ in ends]
    for (_, label, colour), height in zip(ends, _spread(heights, spans), strict=True):
        axes.text(
            1.02, height, label, color=colour, transform=axes.transAxes, va="center", fontsize=10
        )


def _spread(heights: Sequence[float], spans: Sequence[float]) -> list[float]:
    """Return heights moved up just so far that labels of these spans do not touch."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    for below, above in pairwise(order):
        # upwards in the order of the curves' ends, so no label changes places with another
        least = placed[below] + (spans[below] + spans[above]) / 2
        placed[above] = max(placed[above], least)
    overshoot = max([placed[index] + spans[index] / 2 - 1.08 for index in order] + [0.0])
    return [height - overshoot for height in placed]


def svg_of(figure: Figure, description: str) -> Markup:
    """Return the figure as an element for HTML: described, themed, with nothing to fetch."""
    written = io.StringIO()
    # a date or a version would make every page of the same run differ
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", svg)  # names of parts, the same in every figure
    svg = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg)
    # two decimals of a point are finer than a screen shows
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))
