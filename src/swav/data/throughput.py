"""How fast views are made, stage by stage, beside the usual pipeline in the same run."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64

from swav.data.loader import StepViews, loader
from swav.data.sources.pictures import Pictures
from swav.data.views.crops import CropGroup, Pipeline, ViewsConfig
from swav.data.views.multicrop import ByteViews, PictureBatch, make_byte_views, reduction, to_batch

LARGE_SCALE, SMALL_SCALE = (0.14, 1.0), (0.05, 0.14)
"""Shares of the area that SwAV's crops cover."""
TURNS = 3  # odd: the ratio of the medians lies between the least and the most of the turns
_CHUNK = 40  # pictures that each pipeline does in a row: a shared machine slows all of them alike
_WARM_UP = 2
_WORKER_BATCHES = 8

Rows = Int64[np.ndarray, " chunk"]


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
    swav_ms: float
    ratio: float
    """Reference over swav; the next two are the least and the most of the turns."""
    ratio_low: float
    ratio_high: float
    stages: Mapping[str, float]
    """``swav_ms``, taken apart."""
    pictures_per_second: float
    """Of one core, as are the crops."""
    crops_per_second: float
    workers: int
    pictures_per_second_with_workers: float


def swav_views(crops: str) -> ViewsConfig:
    """Return views with the full jitter and blur of SwAV, the first group of large crops.

    Raises:
        ValueError: if ``crops`` is not understood.
    """
    scales = [LARGE_SCALE] + [SMALL_SCALE] * crops.count(",")
    groups = tuple(CropGroup(count=2, size=(1, 1), scale=scale) for scale in scales)
    return ViewsConfig(groups=groups).with_crops(crops)


def measure_input(
    pictures: Pictures, views: ViewsConfig, *, num_images: int, workers: int
) -> InputReport:
    """Return what making the views of a picture costs, evenly over ``num_images`` of the set."""
    rows = np.linspace(0, len(pictures) - 1, min(num_images, len(pictures))).astype(np.int64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = _interleaved(_Runs(pictures, views), rows)
        with_workers = _with_workers(pictures, views, workers)
    finally:
        torch.set_num_threads(threads)
    ms = {name: 1e3 * statistics.median(turns) for name, turns in seconds.items()}
    ratios = [slow / fast for slow, fast in zip(seconds["reference"], seconds["swav"], strict=True)]
    # by difference: the compiled kernel does both in one pass
    colours = ms["views"] - ms["crops"]
    return InputReport(
        data=pictures.data,
        crops=views.description,
        images=len(rows),
        decode_ms=ms["decode"],
        reference_ms=ms["reference"],
        swav_ms=ms["swav"],
        ratio=ms["reference"] / ms["swav"],
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        stages={
            "decode": ms["decode"],
            "crop and resize": ms["swav"] - ms["decode"] - colours - ms["normalise"],
            "colours and blur": colours,
            "normalise": ms["normalise"],
        },
        pictures_per_second=1e3 / ms["swav"],
        crops_per_second=views.num_views * 1e3 / ms["swav"],
        workers=workers,
        pictures_per_second_with_workers=with_workers,
    )


class _Runs:
    """What is timed; a stage goes on from what the stage before it left of the same rows."""

    def __init__(self, pictures: Pictures, views: ViewsConfig) -> None:
        self._pictures = pictures
        self._config = views
        self._decoded = PictureBatch([])
        self._byte_views = ByteViews((), (), 0, torch.empty(0, dtype=torch.int64))

    def all(self) -> Mapping[str, Callable[[Rows], object]]:
        return {
            "decode": self._decode,
            "reference": self._reference,
            "swav": self._swav,
            "crops": self._crops,
            "views": self._views,
            "normalise": self._normalise,
        }

    def _decode(self, rows: Rows) -> None:
        self._decoded = self._read(rows)

    def _reference(self, rows: Rows) -> None:
        to_batch(self._make(self._read(rows, whole=True), rows, "pillow"), self._config)

    def _swav(self, rows: Rows) -> None:
        to_batch(self._make(self._read(rows), rows, "fused"), self._config)

    def _crops(self, rows: Rows) -> None:
        self._make(self._decoded, rows, "device")  # which leaves the colours to the device

    def _views(self, rows: Rows) -> None:
        self._byte_views = self._make(self._decoded, rows, "fused")

    def _normalise(self, _rows: Rows) -> None:
        to_batch(self._byte_views, self._config)

    def _read(self, rows: Rows, *, whole: bool = False) -> PictureBatch:
        if self._pictures.pixels is not None:
            return PictureBatch(self._pictures.pixels, rows)
        allowed = None if whole else partial(reduction, self._config)
        return PictureBatch([self._pictures.reduced(row, allowed) for row in rows.tolist()])

    def _make(self, batch: PictureBatch, rows: Rows, pipeline: Pipeline) -> ByteViews:
        return make_byte_views(batch, rows, self._config, seed=0, epoch=0, pipeline=pipeline)


def _interleaved(runs: _Runs, rows: Rows) -> dict[str, list[float]]:
    """Return seconds of processor time a picture, of each turn; each chunk goes to all runs."""
    # in turns within seconds, as the speed of a shared machine varied by 1.7 within an hour
    # (benchmarks/input_2cpu_2026-11-22.md)
    chunks: Sequence[Rows] = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
    for run in runs.all().values():
        run(rows[:_WARM_UP])  # compiles, or reads what was compiled
    seconds: dict[str, list[float]] = {name: [] for name in runs.all()}
    for _ in range(TURNS):
        spent = dict.fromkeys(seconds, 0.0)
        for chunk in chunks:
            for name, run in runs.all().items():
                # of the processor: what else the machine does is not counted
                started = time.process_time()
                run(chunk)
                spent[name] += time.process_time() - started
        for name, total in spent.items():
            seconds[name].append(total / len(rows))
    return seconds


def _with_workers(pictures: Pictures, views: ViewsConfig, workers: int) -> float:
    """Return the pictures a second of the loader, the time to start it left out."""
    dataset = StepViews(pictures, views, global_batch=min(32, len(pictures)))
    # until each process has its first batches ready
    num_first = 2 * workers
    num_batches = num_first + _WORKER_BATCHES * workers
    batches = loader(dataset, start_step=0, total_steps=num_batches, workers=workers)
    for _ in range(num_first):
        next(batches)
    started = time.monotonic()
    num_images = sum(len(batch.indices) for batch in batches)
    return num_images / (time.monotonic() - started)
