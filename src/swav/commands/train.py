"""``swav train``: the main job, from pictures to a backbone and everything a run leaves behind."""

import logging
import shlex
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import swav.config
from swav import distributed
from swav.commands.outputs import write_outputs, write_views
from swav.commands.plan import check_plan, print_plan
from swav.commands.runs import (
    build_objective,
    load,
    read_record,
    transform_of,
    write_record,
)
from swav.data.loader import StepViews, loader
from swav.data.sources import Pictures
from swav.engine import Clock, Objective, StepOutput, due, fit
from swav.engine.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from swav.engine.launch import available_cores, launch, prepare_network
from swav.engine.lock import RunLock
from swav.engine.log import MetricsLog, Progress
from swav.engine.signals import StopSignal
from swav.engine.state import flatten, restore
from swav.engine.watch import collapse
from swav.evals import KNNConfig, extract, knn
from swav.evals.result import installed_versions
from swav.nn.batchnorm import synchronise_statistics
from swav.recipes import explain, make_config
from swav.recipes.train_config import TrainConfig

logger = logging.getLogger(__name__)

SAVES_PER_RUN = 20
FREE_TO_CHANGE = (
    "log_every",
    "save_every",
    "evaluate_every",
    "workers",
    "tensorboard",
    "data.data",
)
"""Settings that may differ when a run is continued: they do not change what is learned."""


class StoppedBySignal(Exception):
    """The run was asked to stop; it has saved its state and can be continued."""


def train(
    data: str,
    *,
    recipe: str = "auto",
    out: str | Path | None = None,
    config: TrainConfig | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    dry_run: bool = False,
    pictures: Pictures | None = None,
) -> Path:
    """Train on pictures, then export, embed, cluster, evaluate (if labelled) and report.

    Args:
        data: folder, list, archive, array file, ``emoji``, ``digits`` or ``NAME:FOLDER``.
        recipe: settings to start from; ``auto`` chooses by the pictures and the device.
        out: run folder; by default a new one under ``runs/``.
        config: complete settings, in place of ``recipe``.
        resume: continue the interrupted run in ``out``.
        init_from: run folder whose backbone weights to start from; head and prototypes are new.
        dry_run: print the plan, with time and memory, and stop.
        pictures: an opened set (``swav.data.sources.from_arrays``), in place of ``data``.

    Returns:
        The run folder.

    Raises:
        ValueError: naming what does not fit and what to do about it.
        StoppedBySignal: after SIGTERM or Ctrl-C, when the state has been saved.
    """
    if config is None:
        config = _from_recipe(data, recipe, pictures)
    if resume and out is None:
        raise ValueError("--resume needs the run folder to continue: give --out")
    pictures = (config.data.build() if pictures is None else pictures).load()
    facts = pictures.facts()
    for warning in check_plan(config, facts):
        logger.warning(warning)
    if dry_run:
        print_plan(config, facts, pictures)
        return Path(out or "runs")
    if distributed.rank() == 0 and recipe == "auto" and not resume:
        print("\n".join(explain(config, facts)), file=sys.stderr)
    fabric = launch(device=config.device, precision=config.precision, threads=config.threads)
    with ExitStack() as stack:
        folder = _run_folder(fabric, config, out)
        if fabric.is_global_zero:
            stack.enter_context(RunLock(folder))
        session = _start(fabric, folder, config, pictures, recipe=recipe, resume=resume)
        if init_from is not None and session.clock.step == 0:
            session.objective.encoder.load_state_dict(load(init_from).backbone.state_dict())
        _run(session)
        if fabric.is_global_zero:
            write_outputs(session.folder, session.config, session.objective, pictures)
            write_record(folder, status="finished", seconds=round(session.seconds, 1))
        distributed.barrier()
    return folder


@dataclass
class Session:
    """A run in progress, on this rank."""

    fabric: Fabric
    folder: Path
    config: TrainConfig
    pictures: Pictures
    objective: Objective
    optimizer: torch.optim.Optimizer
    views: StepViews
    clock: Clock
    seconds: float = 0.0
    """Spent in training so far, interruptions left out."""
    saved_step: int = -1

    @property
    def save_every_steps(self) -> int:
        """Steps between checkpoints."""
        automatic = max(self.clock.steps_per_epoch, self.clock.total_steps // SAVES_PER_RUN, 1)
        return self.config.save_every or automatic


def _from_recipe(data: str, recipe: str, pictures: Pictures | None) -> TrainConfig:
    from swav.data.sources import SourceConfig

    opened = SourceConfig(data=data).build() if pictures is None else pictures
    config = make_config(recipe, opened)
    return replace(config, data=replace(config.data, data=data))


def _run_folder(fabric: Fabric, config: TrainConfig, out: str | Path | None) -> Path:
    """Return the run folder, the same on all ranks; without ``out`` a new numbered one."""
    if out is not None:
        return Path(out)
    number = torch.tensor(0)
    stem = Path(config.data.data.rstrip("/").split(":")[0]).name.split(".")[0] or "pictures"
    name = f"{stem}-{config.method.name}"
    if fabric.is_global_zero:
        taken = [path.name for path in Path("runs").glob(f"{name}-[0-9][0-9][0-9]")]
        number = torch.tensor(max((int(each[-3:]) for each in taken), default=0) + 1)
    number = distributed.all_reduce_max(number)
    return Path("runs") / f"{name}-{int(number):03d}"


def _start(
    fabric: Fabric,
    folder: Path,
    config: TrainConfig,
    pictures: Pictures,
    *,
    recipe: str,
    resume: bool,
) -> Session:
    """Build everything, from the newest checkpoint if there is one to continue."""
    _check_folder(folder, resume=resume)
    if (folder / "config.yaml").exists():
        _check_same(swav.config.load(TrainConfig, folder / "config.yaml"), config)
    objective = build_objective(config, num_images=len(pictures))
    prepare_network(
        objective,
        fabric,
        sync_batchnorm=config.sync_batchnorm,
        compile_network=_compiles(config, fabric),
    )
    optimizer = config.optim.build(objective)
    optim = config.optim
    views = StepViews(
        pictures,
        config.views,
        global_batch=optim.batch_size,
        accumulate=optim.accumulate,
        seed=config.seed,
        bad_files=folder / "bad_files.txt",
    )
    clock = Clock(
        step=0,
        epoch=0,
        steps_per_epoch=views.steps_per_epoch,
        total_steps=views.steps_per_epoch * config.epochs,
        images=0,
        warmup_steps=round(optim.warmup_epochs * views.steps_per_epoch),
    )
    session = Session(fabric, folder, config, pictures, objective, optimizer, views, clock)
    if resume:
        _continue(session)
    if fabric.is_global_zero:
        _write_start(session, recipe)
    return session


def _compiles(config: TrainConfig, fabric: Fabric) -> bool:
    """On a CPU compiling costs minutes and was not seen to gain anything (docs/log.md)."""
    return config.compile == "on" or (config.compile == "auto" and fabric.device.type == "cuda")


def _check_folder(folder: Path, *, resume: bool) -> None:
    if not resume and any((folder / name).exists() for name in ("config.yaml", "checkpoints")):
        raise ValueError(
            f"{folder} already holds a run: continue it with --resume, or choose another --out"
        )


def _check_same(stored: TrainConfig, given: TrainConfig) -> None:
    """Refuse to continue a run under settings that change what it learns."""
    changed = {
        path: values
        for path, values in swav.config.differences(stored, given).items()
        if not path.startswith(FREE_TO_CHANGE)
    }
    if changed:
        listed = "; ".join(
            f"{path} was {old!r}, now {new!r}" for path, (old, new) in changed.items()
        )
        raise ValueError(
            f"the run to continue has other settings ({listed}): leave these options out, or "
            "start a new run with another --out (--init-from keeps the weights)"
        )


def _continue(session: Session) -> None:
    """Load the newest valid checkpoint into the session, on every rank the same."""
    found = newest_checkpoint(session.folder) if session.fabric.is_global_zero else None
    step = int(distributed.all_reduce_max(torch.tensor(-1 if found is None else found.step)))
    if step < 0:
        print("no checkpoint yet: starting at step 0", file=sys.stderr)
        return
    checkpoint = found or load_checkpoint(session.folder / "checkpoints" / f"step-{step:08d}")
    restore(checkpoint.tensors, session.objective, session.optimizer)
    _check_machine(checkpoint.meta)
    batch = session.config.optim.batch_size
    session.clock = session.clock.at(step, global_batch=batch)
    session.seconds = float(checkpoint.meta["seconds"])
    session.saved_step = step
    if session.fabric.is_global_zero:
        resumes = read_record(session.folder).get("resumes", [])
        entry = {"step": step, "time": _now()}
        write_record(session.folder, resumes=[*resumes, entry])
        print(f"continuing at step {step} of {session.clock.total_steps}", file=sys.stderr)


def _check_machine(meta: dict[str, Any]) -> None:
    """Restore the number of threads, on which the last bit of a gradient depends."""
    if meta["threads"] <= available_cores():
        torch.set_num_threads(meta["threads"])


def _write_start(session: Session, recipe: str) -> None:
    config, folder = session.config, session.folder
    folder.mkdir(parents=True, exist_ok=True)
    swav.config.dump(config, folder / "config.yaml")
    record = read_record(folder)
    if not record:
        write_record(
            folder,
            data=config.data.data,
            recipe=recipe,
            method=config.method.name,
            backbone=config.backbone.name,
            num_images=len(session.pictures),
            seed=config.seed,
            command=shlex.join(sys.argv),
            started=_now(),
            versions=dict(installed_versions()),
            machine=_machine(session),
            resumes=[],
        )
    write_record(folder, status="running")
    if session.pictures.bad_files:
        lines = [f"{bad.name!r}\t{bad.reason}\n" for bad in session.pictures.bad_files]
        path = folder / "bad_files.txt"
        path.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
    write_views(folder, session.pictures, config)


def _machine(session: Session) -> dict[str, Any]:
    return {
        "device": str(session.fabric.device),
        "ranks": distributed.world_size(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "precision": session.config.precision,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def _run(session: Session) -> None:
    """Train to the end, or until a signal asks to stop."""
    config = session.config
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignal())  # before the workers are forked
        batches = loader(
            session.views,
            start_step=session.clock.step,
            total_steps=session.clock.total_steps,
            workers=_num_workers(config),
            pin_memory=session.fabric.device.type == "cuda",
        )
        report = stack.enter_context(_Reporter(session))
        steps = fit(
            session.objective,
            batches,
            session.optimizer,
            session.clock,
            learning_rate=config.optim.learning_rate_at,
            fabric=session.fabric,
            accumulate=config.optim.accumulate,
            clip_norm=config.optim.clip_norm,
            seed=config.seed,
        )
        for clock, output in steps:
            session.clock = clock
            stopping = _on_any_rank(stop.requested)
            evaluating = due(clock, config.evaluate_every * clock.steps_per_epoch)
            if evaluating or due(clock, config.log_every):
                report.log(output, _accuracy(session) if evaluating else {})
            if stopping or due(clock, session.save_every_steps):
                saved = _save(session, report.seconds)
            if stopping and clock.step < clock.total_steps:
                raise _stopped(session, saved)
    session.seconds = report.seconds


def _stopped(session: Session, saved: bool) -> Exception:
    where = f"stopped after step {session.clock.step} of {session.clock.total_steps}"
    if saved:
        return StoppedBySignal(f"{where}; continue with --resume --out {session.folder}")
    return OSError(f"{where}, but this step could not be saved: --resume continues an earlier one")


def _num_workers(config: TrainConfig) -> int:
    if config.workers >= 0:
        return config.workers
    return max(1, available_cores() // distributed.local_world_size() - 1)


def _on_any_rank(flag: bool) -> bool:
    if distributed.world_size() == 1:
        return flag
    return bool(distributed.all_reduce_max(torch.tensor(int(flag))))


def _save(session: Session, seconds: float) -> bool:
    """Publish a checkpoint; a full disk costs the checkpoint, not the run. Same on all ranks."""
    clock, objective = session.clock, session.objective
    if session.saved_step == clock.step:
        return True
    synchronise_statistics(objective)
    failed = False
    if session.fabric.is_global_zero:
        named = objective.named_parameters()
        tensors = flatten(objective.state_dict(), session.optimizer, named)
        meta = {
            "step": clock.step,
            "epoch": clock.epoch,
            "images": clock.images,
            "seconds": seconds,
            "threads": torch.get_num_threads(),
            "ranks": distributed.world_size(),
            "versions": dict(installed_versions()),
        }
        try:
            save_checkpoint(session.folder, step=clock.step, tensors=tensors, meta=meta)
        except OSError as error:
            logger.warning("could not save step %d (%s): training goes on", clock.step, error)
            failed = True
    failed = _on_any_rank(failed)
    session.saved_step = session.saved_step if failed else clock.step
    return not failed


def _accuracy(session: Session) -> dict[str, float]:
    """Return the kNN accuracy of the encoder so far, leave one out, on at most 10,000 pictures."""
    if session.pictures.labels is None or session.config.evaluate_every == 0:
        return {}
    synchronise_statistics(session.objective)
    if not session.fabric.is_global_zero:
        return {}
    started = time.monotonic()
    indices = torch.arange(min(len(session.pictures), 10_000)).numpy()
    features = extract(
        session.objective.encoder,
        session.pictures.subset(indices),
        transform_of(session.config),
        device=session.fabric.device,
    )
    result = knn.run(KNNConfig(k=(10, 20)), features)
    accuracy = {f"knn_{name}": value for name, value in result.metrics.items()}
    return {**accuracy, "evaluation_seconds": round(time.monotonic() - started, 1)}


class _Reporter:
    """Writes what a step has to say: metrics, progress, warnings; rank 0 alone speaks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._started = time.monotonic()
        self._before = session.seconds
        self._images_before = session.clock.images
        self._stack = ExitStack()
        self._last = (self._started, session.clock.images)
        self._warned = False

    @property
    def seconds(self) -> float:
        """Spent in training, earlier sessions included."""
        return self._before + time.monotonic() - self._started

    def __enter__(self) -> "_Reporter":
        session = self._session
        self._log: MetricsLog | None = None
        if session.fabric.is_global_zero:
            log = MetricsLog(session.folder, tensorboard=session.config.tensorboard)
            self._log = self._stack.enter_context(log)
            self._log.truncate_to(session.clock.step)
            self._progress = self._stack.enter_context(Progress(session.clock))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def log(self, output: StepOutput, accuracy: dict[str, float]) -> None:
        """Write a line of ``metrics.jsonl`` and move the progress."""
        session, clock = self._session, self._session.clock
        _check_bad_files(session)
        if self._log is None:
            return
        now = time.monotonic()
        speed = (clock.images - self._last[1]) / max(now - self._last[0], 1e-9)
        self._last = (now, clock.images)
        values = {
            "step": clock.step,
            "epoch": clock.epoch,
            "images": clock.images,
            "seconds": round(self.seconds, 3),
            "loss": float(output.loss),
            "lr": float(session.optimizer.param_groups[0]["lr"]),
            "images_per_second": round(speed, 1),
            **{name: float(value) for name, value in output.metrics.items()},
            **accuracy,
        }
        self._log.write(values)
        self._progress.update(clock, values)
        self._warn_of_collapse(clock, values)

    def _warn_of_collapse(self, clock: Clock, values: dict[str, float]) -> None:
        if self._warned or "ln_k" not in values:
            return
        warning = collapse(
            clock,
            loss=values["loss"],
            ln_k=values["ln_k"],
            prototypes_used=values["prototypes_used"],
        )
        if warning:
            logger.warning(warning)
            self._warned = True


def _check_bad_files(session: Session) -> None:
    """Stop when more pictures than allowed turned out to be unreadable on the way."""
    path = session.folder / "bad_files.txt"
    if not path.exists():
        return
    num_bad = len(set(path.read_bytes().splitlines()))
    allowed = session.config.data.max_bad_fraction
    total = len(session.pictures) + len(session.pictures.bad_files)
    if num_bad > allowed * total:
        raise ValueError(
            f"{num_bad} of {total} pictures cannot be read, more than the allowed {allowed:.1%}: "
            f"see {path}, repair or remove them, or raise --data.max-bad-fraction"
        )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


__all__ = ["StoppedBySignal", "train"]
