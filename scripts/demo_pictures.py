"""Draw the README's pictures from the run folder that `swav demo` has left.

python scripts/demo_pictures.py RUN     writes docs/images/demo-scores.png and demo-clusters.png
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from swav.data.sources.pictures import Pictures
from swav.recipes.train_config import read_train_config
from swav.report.thumbnails import Album
from swav.run_folder import layout
from swav.run_folder.readers import read_clusters

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SCORES = {
    "knn": ("top1_k10", "Nearest neighbours, %"),
    "linear": ("top1", "Linear classifier, %"),
    "clusters": ("kmeans_nmi", "Clusters (k-means), NMI x 100"),
}
BARS = {
    "run": "lite0 + SwAV's prototypes",
    "scratch": "from scratch",
    "patch-kmeans": "patch k-means",
    "pixels": "raw pixels",
    "random": "untrained network",
}
ACCENT, GREY, TEXT = "#2a5db8", "#c3c7d0", "#1f2430"
NUM_CLUSTERS, NUM_MEMBERS, SIDE, GAP, LINE = 12, 8, 72, 4, 22


def draw_scores(run: Path, path: Path) -> None:
    """Draw every score of the run beside its baselines."""
    with matplotlib.rc_context({"font.size": 9, "text.color": TEXT, "axes.spines.top": False}):
        figure = Figure(figsize=(9.6, 2.3), layout="constrained")
        for place, (axes, task) in enumerate(zip(figure.subplots(1, 3), SCORES, strict=True)):
            _draw_task(axes, run, task)
            if place:
                axes.set_yticklabels([])
        figure.savefig(path, dpi=110, facecolor="white")


def _draw_task(axes: Axes, run: Path, task: str) -> None:
    metric, title = SCORES[task]
    result = json.loads(layout.evaluation(run, task).read_text())
    beside = {name: values.get(metric) for name, values in result["baselines"].items()}
    values = [100 * ({"run": result["metrics"][metric]} | beside)[name] for name in BARS]
    low, high = result["intervals"].get(metric, (values[0] / 100, values[0] / 100))
    rows = range(len(BARS))
    axes.barh(rows, values, color=[ACCENT] + [GREY] * (len(BARS) - 1), height=0.6)
    reach = ([values[0] - 100 * low], [100 * high - values[0]])
    axes.errorbar(values[0], 0, xerr=reach, color=TEXT, capsize=3, linewidth=1)
    for row, value in enumerate(values):
        axes.text(max(value, 100 * high * (row == 0)) + 1, row, f"{value:.1f}", va="center")
    axes.set_yticks(rows, list(BARS.values()))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(*values, 100 * high))
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")


def draw_clusters(run: Path, pictures: Pictures, path: Path) -> None:
    """Draw the surest members of the largest clusters, a row for each, in two columns."""
    album = Album(pictures)
    largest = read_clusters(run)[:NUM_CLUSTERS]
    width, height = NUM_MEMBERS * (SIDE + GAP) + 4 * GAP, SIDE + LINE + 2 * GAP
    sheet = Image.new("RGB", (2 * width, -(-len(largest) // 2) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, cluster in enumerate(largest):
        left, top = place % 2 * width, place // 2 * height
        draw.text((left, top + 4), f"{len(cluster.paths)} pictures", fill=TEXT, font=font)
        for member, name in enumerate(cluster.paths[:NUM_MEMBERS]):
            pixels = album.square(name, side=SIDE)
            if pixels is not None:
                tile = Image.fromarray(pixels).resize((SIDE, SIDE))
                sheet.paste(tile, (left + member * (SIDE + GAP), top + LINE))
    colours = sheet.quantize(256)  # a third of the size of all colours
    sheet.quantize(palette=colours).save(path, optimize=True)


def main() -> None:
    """Read the command line and draw both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    pictures = read_train_config(options.run / layout.CONFIG).data.build().load()
    draw_scores(options.run, options.out / "demo-scores.png")
    draw_clusters(options.run, pictures, options.out / "demo-clusters.png")


if __name__ == "__main__":
    main()
