"""``swav bench``: how fast this machine makes views, beside the usual pipeline in the same run."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console
from rich.table import Table

from swav.data.loader import StepViews, loader
from swav.data.sources.decode import Decoded
from swav.data.sources.open import SourceConfig
from swav.data.sources.pictures import Pictures
from swav.data.views.crops import CropGroup, Pipeline, ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views, reduction, to_batch
from swav.engine.launch import available_cores

LARGE_SCALE, SMALL_SCALE = (0.14, 1.0), (0.05, 0.14)
"""Shares of the area that SwAV's crops cover."""
_TURNS = 3
_CHUNK = 40  # pictures that each pipeline does in a row
_WORKER_BATCHES = 8


@dataclass(frozen=True)
class InputReport:
    """What one picture costs, in milliseconds of one core; medians of interleaved turns."""

    data: str
    crops: str
    images: int
    decode_ms: float
    """The floor: no pipeline can be faster than its decoder."""
    reference_ms: float
    """Decoded, cropped, jittered, blurred and normalised by Pillow and torchvision."""
    ours_ms: float
    ratio: float
    """Reference over ours; the next two are the least and the most of the turns."""
    ratio_low: float
    ratio_high: float
    stages_ms: Mapping[str, float]
    """Ours, taken apart."""
    pictures_per_second: float
    """Of one core, as are the crops."""
    crops_per_second: float
    workers: int
    pictures_per_second_with_workers: float


def bench_input(
    data: str,
    *,
    crops: str = "2x224,6x96",
    images: int = 200,
    in_memory: bool = False,
    as_json: bool = False,
) -> InputReport:
    """Measure how fast views are made, with the full jitter and blur of SwAV, and print it.

    Args:
        data: pictures, as for ``swav train``.
        crops: counts and sizes of the views.
        images: pictures in all.
        in_memory: decode the set first, as training does with one that fits into memory.
        as_json: print JSON.

    Raises:
        ValueError: if there are no pictures, or crops are not understood.
    """
    pictures = SourceConfig(data=data).build()
    pictures = pictures.load() if in_memory else pictures
    views = _views(crops)
    chosen = np.linspace(0, len(pictures) - 1, min(images, len(pictures))).astype(np.int64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        report = _measure(pictures, views, chosen)
    finally:
        torch.set_num_threads(threads)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        _print(report)
    return report


def _views(crops: str) -> ViewsConfig:
    parts = crops.count(",") + 1
    scales = [LARGE_SCALE] + [SMALL_SCALE] * (parts - 1)
    groups = tuple(CropGroup(count=2, size=(1, 1), scale=scale) for scale in scales)
    return ViewsConfig(groups=groups).with_crops(crops)


def _measure(
    pictures: Pictures, views: ViewsConfig, chosen: Int64[np.ndarray, " images"]
) -> InputReport:
    def decode(rows: Int64[np.ndarray, " chunk"]) -> list[Decoded]:
        return [
            pictures.reduced(row, lambda *size: reduction(views, *size)) for row in rows.tolist()
        ]

    def by_pillow(rows: Int64[np.ndarray, " chunk"]) -> list[Decoded]:
        return [pictures.reduced(row, None) for row in rows.tolist()]

    def shown(
        rows: Int64[np.ndarray, " chunk"], read: Callable[..., list[Decoded]]
    ) -> PictureBatch:
        return (
            PictureBatch(read(rows))
            if pictures.pixels is None
            else PictureBatch(pictures.pixels, rows)
        )

    def make(pipeline: Pipeline, read: Callable[..., list[Decoded]]) -> Callable[..., object]:
        def run(rows: Int64[np.ndarray, " chunk"]) -> object:
            made = make_byte_views(
                shown(rows, read), rows, views, seed=0, epoch=0, pipeline=pipeline
            )
            return to_batch(made._replace(colours=()), views)

        return run

    decoded: dict[bytes, list[Decoded]] = {}

    def again(rows: Int64[np.ndarray, " chunk"]) -> list[Decoded]:
        return decoded.setdefault(rows.tobytes(), decode(rows))

    def normalise(rows: Int64[np.ndarray, " chunk"]) -> object:
        return to_batch(ready._replace(indices=torch.from_numpy(rows)), views)

    chunks = [chosen[start : start + _CHUNK] for start in range(0, len(chosen), _CHUNK)]
    ready = make_byte_views(shown(chunks[0], again), chunks[0], views, seed=0, epoch=0)  # compiles
    seconds = _interleaved(
        {
            "decode": decode if pictures.pixels is None else len,
            "reference": make("pillow", by_pillow),
            "ours": make("fused", decode),
            "crops": make("device", again),
            "views": make("fused", again),
            "normalise": normalise,
        },
        chunks,
    )
    each = {name: 1e3 * statistics.median(turns) for name, turns in seconds.items()}
    ratios = [slow / fast for slow, fast in zip(seconds["reference"], seconds["ours"], strict=True)]
    colours = each["views"] - each["crops"]
    workers = available_cores()
    return InputReport(
        data=pictures.data,
        crops=views.description,
        images=len(chosen),
        decode_ms=each["decode"],
        reference_ms=each["reference"],
        ours_ms=each["ours"],
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        stages_ms={
            "decode": each["decode"],
            "crop and resize": each["ours"] - each["decode"] - colours - each["normalise"],
            "colours and blur": colours,
            "normalise": each["normalise"],
        },
        pictures_per_second=1e3 / each["ours"],
        crops_per_second=views.num_views * 1e3 / each["ours"],
        workers=workers,
        pictures_per_second_with_workers=_with_workers(pictures, views, workers),
    )


def _interleaved(
    runs: Mapping[str, Callable[..., object]], chunks: Sequence[Int64[np.ndarray, " chunk"]]
) -> dict[str, list[float]]:
    """Return seconds of processor time a picture, of each turn; each chunk goes to all runs."""
    num_images = sum(len(chunk) for chunk in chunks)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_TURNS):
        spent = dict.fromkeys(runs, 0.0)
        for chunk in chunks:
            for name, run in runs.items():
                started = time.process_time()
                run(chunk)
                spent[name] += time.process_time() - started
        for name, seconds in spent.items():
            found[name].append(seconds / num_images)
    return found


def _with_workers(pictures: Pictures, views: ViewsConfig, workers: int) -> float:
    """Return the pictures a second of the loader, the time to start it left out."""
    batch = min(32, len(pictures))
    dataset = StepViews(pictures, views, global_batch=batch)
    warm = 2 * workers
    batches = loader(
        dataset, start_step=0, total_steps=warm + _WORKER_BATCHES * workers, workers=workers
    )
    for _ in range(warm):
        next(batches)
    started = time.monotonic()
    count = sum(len(made.indices) for made in batches)
    return count / (time.monotonic() - started)


def _print(report: InputReport) -> None:
    table = Table(
        "", "ms a picture", "of it", title=f"{report.images} pictures of {report.data}, "
        f"{report.crops}, one core"
    )  # fmt: skip
    table.add_row("reference (Pillow, torchvision)", f"{report.reference_ms:.2f}", "")
    table.add_row("ours", f"{report.ours_ms:.2f}", "")
    for name, each in report.stages_ms.items():
        table.add_row(f"  {name}", f"{each:.2f}", f"{each / report.ours_ms:.0%}")
    console = Console()
    console.print(table)
    console.print(
        f"{report.ratio:.1f} times as fast as the reference "
        f"({report.ratio_low:.1f} to {report.ratio_high:.1f} over {_TURNS} interleaved turns)\n"
        f"{report.pictures_per_second:,.0f} pictures/s and {report.crops_per_second:,.0f} crops/s "
        f"a core; {report.pictures_per_second_with_workers:,.0f} pictures/s with "
        f"{report.workers} workers"
    )
