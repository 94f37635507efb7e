"""What a step of a training costs here: pictures a second, arithmetic, stage by stage."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from swav.config import UsageError
from swav.data.batch import Batch
from swav.data.loader import StepViews
from swav.data.sources.pictures import Pictures
from swav.engine import Clock, Objective, fit
from swav.engine.launch import launch, prepare_network
from swav.recipes.train_config import TrainConfig
from swav.training.machine import compiles, num_threads
from swav.training.networks import build_objective, check_sizes

WARM_UP = 2
DIFFERENT_BATCHES = 2
PEAK_SIDE = 1536
"""Of the square matrices whose product shows what the machine can do."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Medians of some steps; times in milliseconds of a step."""

    recipe: str
    crops: str
    batch_size: int
    steps: int
    device: str
    threads: int
    step_ms: float
    pictures_per_second: float
    """Of the steps, whose views loading processes make meanwhile."""
    views_ms: float
    """One core's, for the views of a step."""
    stages: Mapping[str, float]
    """``step_ms``, taken apart."""
    gflop_per_picture: float
    """Of a forward and backward pass, as torch counts it: convolutions and matrix products."""
    gflops: float
    """Reached by the whole step, 10^9 floating-point operations a second."""
    peak_gflops: float
    """Of a product of two float32 matrices on as many threads, in the same run."""
    share_of_peak: float


class Stopwatch:
    """Adds up what calls take; calls within a call count for themselves too."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Return the time at which all that was asked of the device is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def timed(self, name: str, call: Callable[..., Result]) -> Callable[..., Result]:
        """Return a function that does the same and is timed."""

        def timed(*args: Any, **options: Any) -> Result:
            started = self.now()
            try:
                return call(*args, **options)
            finally:
                self.seconds[name] += self.now() - started

        return timed


def measure_step(
    config: TrainConfig, pictures: Pictures, *, recipe: str, steps: int = 10
) -> StepReport:
    """Train for some steps, and return what they cost; nothing is written.

    Args:
        config: of the training.
        pictures: that it is of.
        recipe: its name, for the report.
        steps: that are measured, after two more.

    Raises:
        ValueError: if the network learns from features alone, or there are too few pictures.
    """
    if config.tuning.part == "head":
        raise UsageError("--tune head trains on features, whose steps take milliseconds")
    fabric = launch(device=config.device, precision=config.precision, threads=num_threads(config))
    objective = build_objective(config, num_images=len(pictures), to_train=True)
    check_sizes(config, objective)
    prepare_network(
        objective,
        fabric,
        sync_batchnorm=config.sync_batchnorm,
        compile_network=compiles(config, fabric),
    )
    watch = Stopwatch(fabric.device)
    batches, views_ms = _batches(config, pictures, watch)
    flop = _flop(objective, fabric.to_device(batches[0]))
    optimizer = config.optim.build(objective, objective.lr_multipliers)
    _time_stages(watch, objective, optimizer, fabric)
    peaks = [_peak(fabric.device, watch)]
    taken: list[dict[str, float]] = []
    walked = fit(
        objective,
        cycle(batches),
        optimizer,
        replace(config.first_clock(steps + WARM_UP), total_steps=steps + WARM_UP),
        learning_rate=config.optim.learning_rate_at,
        fabric=fabric,
        accumulate=config.optim.accumulate,
        clip_norm=config.optim.clip_norm,
        seed=config.seed,
    )
    for number in range(steps + WARM_UP):
        watch.seconds.clear()
        watch.timed("step", next)(walked)
        if number >= WARM_UP:
            taken.append(dict(watch.seconds))
        if number == steps // 2:
            peaks.append(_peak(fabric.device, watch))
    peaks.append(_peak(fabric.device, watch))
    medians = {name: _median(taken, name) for name in (*STAGES, "step", "objective", "optimiser")}
    seconds, batch_size = medians["step"], config.optim.batch_size
    gflops, peak = flop * batch_size / seconds / 1e9, statistics.median(peaks)
    return StepReport(
        recipe=recipe,
        crops=",".join(group.description for group in config.views.groups),
        batch_size=batch_size,
        steps=steps,
        device=str(fabric.device),
        threads=torch.get_num_threads(),
        step_ms=1e3 * seconds,
        pictures_per_second=batch_size / seconds,
        views_ms=views_ms,
        stages=_stages(medians),
        gflop_per_picture=flop / 1e9,
        gflops=gflops,
        peak_gflops=peak,
        share_of_peak=gflops / peak,
    )


STAGES = ("network", "codes", "backward")
"""Timed on their own; other stages are what is left of the calls around them."""


def _stages(medians: Mapping[str, float]) -> dict[str, float]:
    """Return milliseconds that add up to the step."""
    seconds = {
        "network, forward": medians["network"],
        "codes": medians["codes"],
        "heads and loss, forward": medians["objective"] - medians["network"] - medians["codes"],
        "backward": medians["backward"],
        "optimiser": medians["optimiser"],
        "checks, metrics, bookkeeping": medians["step"]
        - medians["objective"]
        - medians["backward"]
        - medians["optimiser"],
    }
    return {name: 1e3 * value for name, value in seconds.items()}


def _median(taken: list[dict[str, float]], name: str) -> float:
    return statistics.median(each.get(name, 0.0) for each in taken)


def _time_stages(
    watch: Stopwatch, objective: Objective, optimizer: torch.optim.Optimizer, fabric: Any
) -> None:
    """Have the parts of a step timed wherever the loop calls them."""
    backbone = objective.get_submodule("backbone")
    calls: list[tuple[str, Any, str]] = [
        ("network", backbone, "forward"),
        ("objective", objective, "forward"),
        ("backward", fabric, "backward"),
        ("optimiser", optimizer, "step"),
    ]
    if hasattr(objective, "codes"):
        calls.append(("codes", objective, "codes"))
    for name, owner, call in calls:
        setattr(owner, call, watch.timed(name, getattr(owner, call)))


def _batches(
    config: TrainConfig, pictures: Pictures, watch: Stopwatch
) -> tuple[list[Batch], float]:
    """Return micro-batches, and the milliseconds of one core for the views of a step."""
    views = StepViews(
        pictures,
        config.views,
        global_batch=config.optim.batch_size,
        accumulate=config.optim.accumulate,
        seed=config.seed,
        pipeline=config.views.pipeline,
        pretext=config.method.pretext,
        image_groups=config.views.image_groups(pictures),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made, seconds = [], []
    for number in range(DIFFERENT_BATCHES * config.optim.accumulate + 1):
        started = watch.now()
        made.append(views.batch(number))
        seconds.append(watch.now() - started)
    torch.set_num_threads(threads)
    # the first compiles
    return made[1:], 1e3 * statistics.median(seconds[1:]) * config.optim.accumulate


def _flop(objective: Objective, batch: Batch) -> float:
    """Return the floating-point operations of a picture's forward and backward pass."""
    clock = Clock(step=0, epoch=0, steps_per_epoch=1, total_steps=1, images=0)
    objective.train()
    objective.prepare([batch])
    objective.before_epoch(clock)
    objective.before_step(clock)
    with FlopCounterMode(display=False) as counter:
        objective(batch, clock).loss.backward()
    objective.zero_grad(set_to_none=True)
    total: int = counter.get_total_flops()
    return total / len(batch.indices)


def _peak(device: torch.device, watch: Stopwatch) -> float:
    """Return 10^9 floating-point operations a second of a matrix product."""
    one, other = (torch.randn(PEAK_SIDE, PEAK_SIDE, device=device) for _ in range(2))
    seconds = []
    for _ in range(4):
        started = watch.now()
        one @ other
        seconds.append(watch.now() - started)
    return 2 * PEAK_SIDE**3 / min(seconds) / 1e9
