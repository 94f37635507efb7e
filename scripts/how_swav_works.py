"""Draw docs/images/how-swav-works.svg: `python scripts/how_swav_works.py`."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

BLUE, GREEN, INK = "#2a5db8", "#2a7a5d", "#222222"
TARGET = Path(__file__).parents[1] / "docs/images/how-swav-works.svg"


def box(axes: Axes, at: tuple[float, float], text: str, *, colour: str = INK) -> None:
    """Draw a box with a text around a point."""
    style = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour}
    axes.text(*at, text, ha="center", va="center", color=colour, fontsize=10, bbox=style)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """Draw an arrow between two points."""
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def branch(axes: Axes, y: float, view: str, code_y: float, softmax_y: float) -> None:
    """Draw what one view goes through."""
    box(axes, (2.4, y), f"view {view}\nrandom crop")
    box(axes, (4.7, y), f"network, head\n$z_{view}$, length 1")
    box(axes, (7.0, y), "scores:\n$z \\cdot$ prototypes")
    box(axes, (9.6, code_y), f"Sinkhorn: code $q_{view}$", colour=GREEN)
    box(axes, (9.6, softmax_y), f"softmax: $p_{view}$", colour=BLUE)
    arrow(axes, (1.0, 2.0), (1.75, y), INK)
    arrow(axes, (3.05, y), (3.85, y), INK)
    arrow(axes, (5.55, y), (6.25, y), INK)
    arrow(axes, (7.75, y), (8.6, code_y), GREEN)
    arrow(axes, (7.75, y), (8.85, softmax_y), BLUE)


def main() -> None:
    """Draw the figure."""
    mpl.rcParams["svg.hashsalt"] = "swav"
    figure, axes = plt.subplots(figsize=(12.5, 4))
    axes.set(xlim=(0, 13.4), ylim=(-0.2, 4.2))
    axes.axis("off")
    box(axes, (0.6, 2.0), "picture")
    branch(axes, 3.3, "1", 3.8, 2.8)
    branch(axes, 0.7, "2", 0.2, 1.2)
    box(axes, (12.3, 3.3), "loss: $p_2$ predicts $q_1$")
    box(axes, (12.3, 0.7), "loss: $p_1$ predicts $q_2$")
    arrow(axes, (10.7, 3.8), (11.2, 3.45), GREEN)
    arrow(axes, (10.35, 1.2), (11.6, 3.0), BLUE)
    arrow(axes, (10.35, 2.8), (11.6, 1.0), BLUE)
    arrow(axes, (10.7, 0.2), (11.2, 0.55), GREEN)
    axes.text(6.9, 2.0, "same network, head and prototypes", ha="center", va="center", fontsize=9)
    figure.savefig(TARGET, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
