"""``swav bench``: how fast this machine makes views, beside the usual pipeline in the same run."""

from dataclasses import asdict
from json import dumps
from typing import Literal

from rich.console import Console
from rich.table import Table

from swav.config import UnknownNameError, UsageError
from swav.data.sources.open import SourceConfig
from swav.data.throughput import TURNS, InputReport, measure_input, swav_views
from swav.engine.launch import available_cores


def bench(
    what: Literal["input"],
    data: str,
    /,
    *,
    crops: str = "2x224,6x96",
    images: int = 200,
    in_memory: bool = False,
    json: bool = False,
) -> InputReport:
    """Measure how fast views are made, with the full jitter and blur of SwAV, and print it.

    Args:
        what: what to measure.
        data: pictures, as for ``swav train``.
        crops: counts and sizes of the views.
        images: pictures in all.
        in_memory: decode the set first, as training does with one that fits into memory.
        json: print JSON.

    Raises:
        ValueError: if there are no pictures, or crops are not understood.
    """
    if what != "input":
        raise UnknownNameError("measure", what, ["input"])
    if images < 1:
        raise UsageError(f"images {images} must be at least 1; the default is 200")
    pictures = SourceConfig(data=data).build()
    pictures = pictures.load() if in_memory else pictures
    workers = available_cores()
    report = measure_input(pictures, swav_views(crops), num_images=images, workers=workers)
    if json:
        print(dumps(asdict(report), indent=2))
    else:
        _print(report)
    return report


def _print(report: InputReport) -> None:
    table = Table(
        "", "ms a picture", "of it", title=f"{report.images} pictures of {report.data}, "
        f"{report.crops}, one core"
    )  # fmt: skip
    table.add_row("reference (Pillow, torchvision)", f"{report.reference_ms:.2f}", "")
    table.add_row("swav", f"{report.swav_ms:.2f}", "")
    for name, ms in report.stages.items():
        table.add_row(f"  {name}", f"{ms:.2f}", f"{ms / report.swav_ms:.0%}")
    console = Console()
    console.print(table)
    console.print(
        f"{report.ratio:.1f} times as fast as the reference "
        f"({report.ratio_low:.1f} to {report.ratio_high:.1f} over {TURNS} interleaved turns)\n"
        f"{report.pictures_per_second:,.0f} pictures/s and {report.crops_per_second:,.0f} crops/s "
        f"a core; {report.pictures_per_second_with_workers:,.0f} pictures/s with "
        f"{report.workers} workers"
    )
