"""``swav bench``: how fast this machine makes views, and what a step of a training costs."""

from dataclasses import asdict, replace
from json import dumps
from typing import Literal

from rich.console import Console
from rich.table import Table

from swav.config import UnknownNameError, UsageError
from swav.data.sources.open import SourceConfig
from swav.data.throughput import TURNS, InputReport, measure_input, swav_views
from swav.engine.launch import available_cores
from swav.recipes import make_config
from swav.training.step_bench import StepReport, measure_step


def bench(
    what: Literal["input", "step"],
    data: str = "clothes",
    /,
    *,
    recipe: str = "auto",
    crops: str | None = None,
    images: int = 200,
    steps: int = 10,
    device: str = "auto",
    threads: int = 0,
    in_memory: bool = False,
    json: bool = False,
) -> InputReport | StepReport:
    """Measure how fast views are made, or what a step of a training costs, and print it.

    Args:
        what: views with the full jitter and blur of SwAV (input), or the steps of a recipe.
        data: pictures, as for ``swav train``.
        recipe: whose steps.
        crops: counts and sizes of the views, by default 2x224,6x96 for input and the recipe's own.
        images: pictures in all, of input.
        steps: that are measured.
        device: of steps.
        threads: of steps, by default as many as a training takes.
        in_memory: decode the set first for input, as training does with one that fits into memory.
        json: print JSON.

    Raises:
        ValueError: if there are no pictures, or crops are not understood.
    """
    if what not in ("input", "step"):
        raise UnknownNameError("measure", what, ["input", "step"])
    for name, value, usual in (("images", images, 200), ("steps", steps, 10)):
        if value < 1:
            raise UsageError(f"{name} {value} must be at least 1; the default is {usual}")
    pictures = SourceConfig(data=data).build()
    report: InputReport | StepReport
    if what == "step":
        pictures = pictures.load()
        config = make_config(recipe, pictures, device)
        views = config.views if crops is None else config.views.with_crops(crops)
        config = replace(config, views=views, threads=threads)
        report = measure_step(config, pictures, recipe=recipe, steps=steps)
    else:
        views = swav_views(crops or "2x224,6x96")
        pictures = pictures.load() if in_memory else pictures
        report = measure_input(pictures, views, num_images=images, workers=available_cores())
    if json:
        print(dumps(asdict(report), indent=2))
    elif isinstance(report, StepReport):
        _print_step(report)
    else:
        _print(report)
    return report


def _print_step(report: StepReport) -> None:
    table = Table(
        "", "ms a step", "of it", title=f"{report.recipe}: steps of {report.batch_size} pictures, "
        f"{report.crops}, {report.device}, {report.threads} threads"
    )  # fmt: skip
    for name, ms in report.stages.items():
        table.add_row(name, f"{ms:.1f}", f"{ms / report.step_ms:.0%}")
    table.add_row("the step", f"{report.step_ms:.1f}", "")
    table.add_row("views, by loading processes meanwhile: one core's", f"{report.views_ms:.1f}", "")
    console = Console()
    console.print(table)
    console.print(
        f"{report.pictures_per_second:,.0f} pictures/s of {report.gflop_per_picture:.2f} GFLOP: "
        f"{report.gflops:,.0f} GFLOP/s, {report.share_of_peak:.0%} of the "
        f"{report.peak_gflops:,.0f} that a product of two matrices reaches here"
    )


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
