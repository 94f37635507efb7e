"""``swav train``: the main job, from pictures to a backbone and everything a run leaves behind."""

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal, overload

import torch
from lightning_fabric import Fabric

from swav import distributed
from swav.data.batch import AnyBatch
from swav.data.loader import StepViews, loader
from swav.data.processes import LoadingError
from swav.data.sources.open import Data, SourceConfig, named_or_opened
from swav.data.sources.pictures import Pictures
from swav.engine import due, fit
from swav.engine.launch import check_machine, launch
from swav.nn.batchnorm import synchronise_statistics, synchronised_statistics
from swav.recipes import explain, make_config
from swav.recipes.start_network import RANDOM
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.report.wording import verdict
from swav.run_folder import layout
from swav.run_folder.bad_files import check_bad_files, write_bad_files
from swav.run_folder.lock import RunLock
from swav.run_folder.record import (
    check_continuable,
    hands_out_start,
    read_record,
    write_record,
)
from swav.run_folder.text_log import RunLog
from swav.run_folder.upgrade import upgrade
from swav.training.checks import check_content, check_groups, check_plan, check_views
from swav.training.continuation import check_folder
from swav.training.machine import num_threads, num_workers
from swav.training.networks import transform_of
from swav.training.online_evaluation import PeriodicEvaluation
from swav.training.outputs import drawbacks_of, write_outputs
from swav.training.plan import print_plan
from swav.training.progress import TrainingLog
from swav.training.session import Session, on_all_ranks, on_any_rank, save, start_session, unsaved
from swav.training.start import check_start, open_start, starting
from swav.training.stop_signal import StopSignal
from swav.training.trained_run import TrainedRun, load

__all__ = ["StoppedBySignal", "train"]

logger = logging.getLogger(__name__)


class StoppedBySignal(Exception):
    """The run was asked to stop; it has saved its state and can be continued."""


@overload
def train(
    data: Data,
    *,
    recipe: str = ...,
    out: str | PathLike[str] | None = ...,
    config: TrainConfig | None = ...,
    resume: bool = ...,
    init: str | PathLike[str] | None = ...,
    tune: str | None = ...,
    allow_missing: bool = ...,
    dry_run: Literal[False] = ...,
    allow_factory: Collection[str] = ...,
) -> TrainedRun: ...
@overload
def train(
    data: Data,
    *,
    recipe: str = ...,
    out: str | PathLike[str] | None = ...,
    config: TrainConfig | None = ...,
    resume: bool = ...,
    init: str | PathLike[str] | None = ...,
    tune: str | None = ...,
    allow_missing: bool = ...,
    dry_run: Literal[True],
    allow_factory: Collection[str] = ...,
) -> None: ...
def train(
    data: Data,
    *,
    recipe: str = "auto",
    out: str | PathLike[str] | None = None,
    config: TrainConfig | None = None,
    resume: bool = False,
    init: str | PathLike[str] | None = None,
    tune: str | None = None,
    allow_missing: bool = False,
    dry_run: bool = False,
    allow_factory: Collection[str] = (),
) -> TrainedRun | None:
    """Train on pictures, then export, embed, cluster, evaluate (if labelled) and report.

    Args:
        data: folder, list, archive, array file, ``clothes``, ``emoji``, ``digits`` or
            ``NAME:FOLDER``; or what ``swav.from_arrays`` takes or returns: arrays, images, a list
            of paths.
        recipe: settings to start from; ``auto`` chooses by the pictures and the device.
        out: run folder; by default a new one under ``runs/``.
        config: complete settings, in place of ``recipe``.
        resume: continue the interrupted run in ``out``.
        init: weights of the backbone to start from: ``random``, ``timm`` (published), ``lite0``,
            a run folder or a weights file; by default what ``config`` says, or ``random``.
        tune: what is trained of these weights: ``head`` (nothing: prototypes alone, on features of
            the frozen network), ``last:N`` stages or ``all``; by default what ``config`` says, or
            what ``recipe`` chooses.
        allow_missing: start even if ``init`` lacks weights of the backbone, which are random then.
        dry_run: print the plan, with time and memory, and stop.
        allow_factory: ``package.module:function`` that a config or run may name as its backbone.

    Returns:
        The run, which stands for its folder too; None after a dry run.

    Raises:
        ValueError: naming what does not fit and what to do about it.
        StoppedBySignal: after SIGTERM or Ctrl-C, when the state has been saved.
    """
    if resume and out is None:
        raise ValueError("--resume needs the run folder to continue: give --out")
    continued = Path(out) if resume and out else None
    source = named_or_opened(data, channels=3 if config is None else config.data.channels)
    if config is None:
        config, source = _config(source, recipe, continued, init=str(init or RANDOM), tune=tune)
    config = replace(
        config,
        data=_source(source, config.data),
        init=str(init or config.init),
        tune=tune or config.tune,
    )
    config.backbone.check_factory(allow_factory)
    check_machine(
        device=config.device, precision=config.precision, sync_batchnorm=config.sync_batchnorm
    )
    pictures = (source if isinstance(source, Pictures) else config.data.build()).load()
    facts = pictures.facts()
    check_content(pictures)
    remarks = [
        *check_plan(config, facts),
        *check_groups(config, pictures),
        *check_start(config, allow_factory),
    ]
    opened = partial(open_start, config, allow_missing=allow_missing, allow_factory=allow_factory)
    start = starting(config, continued, opened)
    if dry_run:
        for remark in [*remarks, *check_views(config, pictures)]:
            logger.warning(remark)
        print_plan(config, facts, pictures, start=start, allow_factory=allow_factory)
        return None
    fabric = launch(device=config.device, precision=config.precision, threads=num_threads(config))
    with ExitStack() as stack:
        folder = _run_folder(fabric, config, out)
        with on_all_ranks():
            _enter(stack, fabric, folder, config, pictures, resume=resume)
        if fabric.is_global_zero:
            stack.enter_context(RunLog(folder))
            for remark in remarks if resume else [*remarks, *check_views(config, pictures)]:
                logger.warning(remark)
            if recipe == "auto" and not resume:
                logger.info("\n".join(explain(config, facts)))
            if start is not None:
                logger.info(start.summary)
            stack.enter_context(_recorded(folder))
        with StopSignal() as stop:  # before the first state is read and the workers are forked
            session = start_session(
                fabric,
                folder,
                config,
                pictures,
                recipe=recipe,
                resume=resume,
                start=start,
                allow_factory=allow_factory,
            )
            _run(session, stop)
        with distributed.alone():  # the first rank ends after the others, which wait for nothing
            if fabric.is_global_zero:
                _finish(session)
            return _opened(session, allow_factory)


def _opened(session: Session, allow_factory: Collection[str]) -> TrainedRun:
    """Return the run as ``swav.load`` does, with the network that is in memory."""
    pictures, folder = session.pictures, session.folder
    trained_on = pictures if pictures.source is None else None
    if hands_out_start(read_record(folder)):
        run = load(folder, device=session.config.device, allow_factory=allow_factory)
        return replace(run, trained_on=trained_on)
    return TrainedRun(
        folder=folder,
        config=session.config,
        objective=session.objective.eval(),
        num_images=len(pictures),
        allow_factory=allow_factory,
        checkpoint=layout.checkpoint(folder, session.saved_step),
        trained_on=trained_on,
    )


def _enter(
    stack: ExitStack,
    fabric: Fabric,
    folder: Path,
    config: TrainConfig,
    pictures: Pictures,
    *,
    resume: bool,
) -> None:
    """Lock the run folder and bring it to its present form, on the first rank."""
    if fabric.is_global_zero:
        stack.enter_context(RunLock(folder))
        check_folder(folder, config, pictures, resume=resume)
        upgrade(folder)


def _config(
    data: str | Pictures,
    recipe: str,
    continued: Path | None,
    *,
    init: str,
    tune: str | None,
) -> tuple[TrainConfig, str | Pictures]:
    """Return the settings of the run to continue, or else of the recipe for the opened pictures."""
    if continued is not None and layout.is_run(continued):
        check_continuable(continued)
        return read_train_config(continued / layout.CONFIG), data
    if isinstance(data, Pictures):
        return make_config(recipe, data, init=init, tune=tune), data
    opened = SourceConfig(data=data).build()
    config = make_config(recipe, opened, init=init, tune=tune)
    source = _source(data, config.data)  # of the recipe, which may read the pictures in another way
    return config, opened if source == opened.source else data


def _source(data: str | Pictures, source: SourceConfig) -> SourceConfig:
    """Return the config of the pictures, which is that of an opened set if it has one."""
    if isinstance(data, str):
        return replace(source, data=data)
    return data.source or replace(source, data=data.data, channels=data.channels)


def _run_folder(fabric: Fabric, config: TrainConfig, out: str | PathLike[str] | None) -> Path:
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


@contextmanager
def _recorded(folder: Path) -> Iterator[None]:
    """Write into ``run.json`` how the run ended if it did not come to its end."""
    try:
        yield
    except BaseException as error:
        if (folder / layout.RECORD).exists():
            stopped = isinstance(error, StoppedBySignal | KeyboardInterrupt)
            try:
                write_record(folder, status="stopped" if stopped else "failed")
            except OSError as full:  # perhaps for the same reason
                logger.warning("could not write how the run ended: %s", full)
        raise


def _run(session: Session, stop: StopSignal) -> None:
    """Train what is left, or until a signal asks to stop."""
    if session.is_trained:
        return
    if on_any_rank(stop.requested):
        raise _stopped(session, saved=True)
    with TrainingLog(session) as log:
        try:
            _train(session, stop, log)
        except ValueError:  # of a worker perhaps, wrapped in its traceback
            source = session.config.data
            check_bad_files(session.folder, source, num_listed=session.num_listed)
            raise
        except LoadingError as error:
            raise _without_pictures(session, log.seconds, error) from error
    session.seconds = log.seconds


def _first_pass(session: Session, stop: StopSignal) -> Iterator[AnyBatch]:
    """Yield the target views of one epoch, for the method that asks for them."""
    targets = session.views
    if isinstance(targets, StepViews):
        targets = targets.of_groups(session.config.views.groups[:1])
    number, workers = targets.steps_per_epoch, _workers(session)
    device = session.fabric.device
    made = loader(targets, start_step=0, total_steps=number, workers=workers, device=device)
    for batch in made:
        if on_any_rank(stop.requested):
            raise _stopped(session, saved=True)  # there is nothing to save yet
        yield batch


def _workers(session: Session) -> int:
    """Return the processes that make batches; features lie in memory, and are only picked."""
    return num_workers(session.config) if isinstance(session.views, StepViews) else 0


def _train(session: Session, stop: StopSignal, log: TrainingLog) -> None:
    config = session.config
    if session.clock.step == 0:  # later steps have it from their checkpoint
        session.objective.to(session.fabric.device).train()
        with session.fabric.autocast():
            session.objective.prepare(_first_pass(session, stop))
    batches = loader(
        session.views,
        start_step=session.clock.step,
        total_steps=session.clock.total_steps,
        workers=_workers(session),
        device=session.fabric.device,
    )
    evaluation = PeriodicEvaluation(session.pictures, transform_of(config))
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
        stopping = on_any_rank(stop.requested)
        every = config.evaluate_every * clock.steps_per_epoch
        evaluating = every > 0 and due(clock, every)
        if evaluating or due(clock, config.log_every):
            log.log(output, _scores(session, evaluation) if evaluating else {})
        if stopping or due(clock, session.save_every_steps):
            saved = save(session, log.seconds)
        if stopping and not session.is_trained:
            raise _stopped(session, saved=saved)
    if session.saved_step != session.clock.step:
        raise unsaved(session)
    synchronise_statistics(session.objective)  # the outputs are of what was saved


def _stopped(session: Session, *, saved: bool) -> Exception:
    where = f"stopped after step {session.clock.step} of {session.clock.total_steps}"
    if saved:
        return StoppedBySignal(f"{where}; continue with --resume --out {session.folder}")
    return OSError(f"{where}, but this step could not be saved: --resume continues an earlier one")


def _without_pictures(session: Session, seconds: float, error: LoadingError) -> LoadingError:
    """Save what there is, and say how to go on; other ranks would not take part in saving."""
    step = session.clock.step
    saved = step > 0 and distributed.world_size() == 1 and save(session, seconds)
    where = f"step {step} is saved" if saved else f"step {max(session.saved_step, 0)} was the last"
    return LoadingError(f"{error}; {where}: continue with --resume --out {session.folder}")


def _finish(session: Session) -> None:
    """Make what is missing of a trained run, the report last; it says that the run is finished."""
    folder = session.folder
    write_bad_files(folder, session.pictures.bad_files)
    write_outputs(
        folder,
        session.config,
        session.objective,
        session.pictures,
        step=session.clock.step,
        seconds=round(session.seconds, 1),
        allow_factory=session.allow_factory,
    )
    found, record = drawbacks_of(folder), read_record(folder)
    if hands_out_start(record) or not found:
        logger.info(verdict(record))
    for sentence in found:  # last of all, where nobody can miss it
        logger.warning(sentence)


def _scores(session: Session, evaluation: PeriodicEvaluation) -> dict[str, float]:
    """Return how good the encoder is so far; all ranks take part, the first one measures."""
    with synchronised_statistics(session.objective):
        encoder = session.objective.encoder
        return evaluation.measure(encoder) if session.fabric.is_global_zero else {}
