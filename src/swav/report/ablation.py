"""The rows of an ablation put together: mean and spread over seeds, as a table and as a figure."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from swav.report.figures import ACCENT, ON_WHITE, STYLE, WARM
from swav.report.score_table import WIDE
from swav.run_folder.atomic import write_atomically

Row = Mapping[str, str]
"""One finished run: its settings, its seed and what was measured, as they stand in a CSV file."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured of every run."""

    title: str
    factor: float = 1.0
    digits: int = 1


MEASURES = {
    "knn": Measured(title="kNN, %", factor=100),
    "linear": Measured(title="linear, %", factor=100),
    "own_nmi": Measured(title="own clusters, NMI, %", factor=100),
    "part_retrieval": Measured(title="picture found from a part, %", factor=100),
    "stability": Measured(title="stability of clusters, AMI, %", factor=100),
    "rankme": Measured(title="effective rank"),
}
COSTS = {
    "epochs": Measured(title="epochs", digits=0),
    "seconds": Measured(title="seconds", digits=0),
    "pictures_per_second": Measured(title="pictures/s", digits=0),
}
COLUMNS = MEASURES | COSTS
"""What a row holds beside its settings and its seed; scores that it does not have are empty."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ by their seed alone."""

    settings: tuple[str, ...]
    rows: tuple[Row, ...]

    def values(self, name: str) -> list[float]:
        """Return what was measured, as it is shown."""
        return [COLUMNS[name].factor * float(row[name]) for row in self.rows if row[name]]

    def cell(self, name: str) -> str:
        """Return mean and spread; a dash where nothing was measured."""
        values, digits = self.values(name), COLUMNS[name].digits
        if not values:
            return "-"
        spread = f" +- {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{spread}"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All runs of an ablation, in groups."""

    keys: tuple[str, ...]
    """The settings that it varies."""
    groups: tuple[Group, ...]

    @property
    def columns(self) -> list[str]:
        """What was measured of any run."""
        return [name for name in COLUMNS if any(group.values(name) for group in self.groups)]

    @property
    def heads(self) -> list[str]:
        """The heads of the table."""
        return [*self.keys, "seeds", *(COLUMNS[name].title for name in self.columns)]

    @property
    def cells(self) -> list[list[str]]:
        """The lines of the table."""
        return [
            [*group.settings, str(len(group.rows)), *map(group.cell, self.columns)]
            for group in self.groups
        ]


def summarised(rows: Sequence[Row], keys: Sequence[str]) -> Summary:
    """Return rows in groups, in the order of their first runs."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return Summary(
        keys=tuple(keys),
        groups=tuple(
            Group(settings=settings, rows=tuple(members)) for settings, members in groups.items()
        ),
    )


def write_table(summary: Summary, path: Path) -> None:
    """Write the table as markdown."""
    lines = [summary.heads, ["---"] * len(summary.heads), *summary.cells]
    text = [" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines]
    write_atomically(path, "".join(f"| {line} |\n" for line in text))


def print_ablation(summary: Summary, *, title: str) -> None:
    """Print the same table."""
    table = Table(*summary.heads, title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for line in summary.cells:
        table.add_row(*line)
    console = Console()
    if not console.is_terminal:  # a file has lines of any length
        console.width = WIDE
    console.print(table)


def write_figure(summary: Summary, path: Path) -> None:
    """Draw each measure and the seconds: every run a dot, means with their deviation a line."""
    names = [name for name in summary.columns if name in MEASURES or name == "seconds"]
    labels = ["\n".join(group.settings).replace("$", r"\$") for group in summary.groups]
    width = max(3.2, 0.9 * len(labels))
    with matplotlib.rc_context({name: ON_WHITE.get(value, value) for name, value in STYLE.items()}):
        height = 2.9 + 0.16 * len(summary.keys)
        figure = Figure(figsize=(width * len(names), height), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _draw(axes, summary, name)
            axes.set_xticks(np.arange(len(labels)), labels)
            axes.set_xlabel(", ".join(summary.keys))
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=150, metadata={"Software": None})
    write_atomically(path, written.getvalue())


def _draw(axes: Axes, summary: Summary, name: str) -> None:
    ink = ON_WHITE[ACCENT if name in MEASURES else WARM]
    places, means, spreads = [], [], []
    for place, group in enumerate(summary.groups):
        values = group.values(name)
        axes.plot([place] * len(values), values, "o", color=ink, alpha=0.35, markersize=4)
        if values:
            places.append(place)
            means.append(mean(values))
            spreads.append(stdev(values) if len(values) > 1 else 0.0)
    axes.errorbar(places, means, yerr=spreads, color=ink, capsize=4, marker="o")
    axes.set_title(COLUMNS[name].title, loc="left", fontsize=10)
    axes.margins(x=0.15)
