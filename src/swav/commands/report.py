"""``swav report``: the page of a run, written anew."""

from os import PathLike
from pathlib import Path

from swav.recipes.train_config import read_train_config
from swav.report import write_report
from swav.run_folder import layout


def report(run: str | PathLike[str], /, *, map_points: int | None = None) -> Path:
    """Write ``report.html`` of a run anew, print where it is, and return that.

    Args:
        run: run folder.
        map_points: most pictures on the map, up to 20,000; by default as many as it has, or 2,000.

    Raises:
        ValueError: if the folder holds no run, or ``map_points`` is out of range.
    """
    folder = Path(run)
    if not layout.is_run(folder):
        raise ValueError(
            f"{folder} is no run folder (no {layout.CONFIG}): give the --out of a training"
        )
    pictures = read_train_config(folder / layout.CONFIG).data.build().load()
    path = write_report(folder, pictures, map_points=map_points)
    print(path)
    return path
