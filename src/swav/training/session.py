"""A training in progress: built anew, or from the newest checkpoint of its folder."""

import logging
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

import swav.config
from swav import distributed
from swav.data.loader import Steps, StepViews
from swav.data.sources.pictures import Pictures
from swav.engine import Clock, Objective
from swav.engine.launch import loss_scaler, prepare_network
from swav.nn.batchnorm import (
    statistics_of_ranks,
    synchronised_statistics,
    take_own_statistics,
)
from swav.recipes.train_config import TrainConfig
from swav.run_folder import layout
from swav.run_folder.bad_files import append_bad_file, write_bad_files
from swav.run_folder.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from swav.run_folder.config_file import write_config
from swav.run_folder.record import now, read_record, write_record
from swav.run_folder.result import installed_versions
from swav.run_folder.state import flatten, restore, restore_weights
from swav.training import machine
from swav.training.adaptation import late_layers
from swav.training.frozen_features import step_features
from swav.training.networks import build_objective, check_sizes
from swav.training.outputs import draw_views
from swav.training.start import StartWeights

logger = logging.getLogger(__name__)

SAVES_PER_RUN = 20
RANK_STATISTICS = "rank_statistics/"
"""Keys of a checkpoint for the BatchNorm statistics that each of several ranks goes on with."""


class ElsewhereError(ValueError):
    """Another rank has refused the run, and told why."""


@dataclass
class Session:
    """A run in progress, on this rank."""

    fabric: Fabric
    folder: Path
    config: TrainConfig
    pictures: Pictures
    objective: Objective
    optimizer: torch.optim.Optimizer
    views: Steps[Any]
    """Batches of views, or of features of a network that stays as it is."""
    clock: Clock
    num_listed: int
    """Pictures of the source, those left out as unreadable included."""
    seconds: float = 0.0
    """Spent in training so far, interruptions left out."""
    saved_step: int = -1
    save_failure: str = ""
    """Why the last attempt to save failed, on the rank that saves."""
    allow_factory: Collection[str] = ()
    """Factories that may build its network."""

    @property
    def is_trained(self) -> bool:
        """Whether every step is done."""
        return self.clock.step >= self.clock.total_steps

    @property
    def save_every_steps(self) -> int:
        """Steps between checkpoints."""
        automatic = max(self.clock.steps_per_epoch, self.clock.total_steps // SAVES_PER_RUN, 1)
        return self.config.save_every or automatic


def start_session(
    fabric: Fabric,
    folder: Path,
    config: TrainConfig,
    pictures: Pictures,
    *,
    recipe: str,
    resume: bool,
    start: StartWeights | None = None,
    allow_factory: Collection[str] = (),
) -> Session:
    """Build everything, from the newest checkpoint if there is one to continue.

    Args:
        fabric: where to compute.
        folder: run folder; ``check_folder`` has passed it.
        config: complete settings.
        pictures: what to learn from.
        recipe: what the run's record calls the settings.
        resume: whether to look for a checkpoint.
        start: weights of the backbone to start from.
        allow_factory: names of factories that may build the backbone.
    """
    num_listed = len(pictures) + len(pictures.bad_files)
    objective = build_objective(
        config,
        num_images=len(pictures),
        weights=None if start is None else start.tensors,
        allow_factory=allow_factory,
        to_train=True,
    )
    check_sizes(config, objective)
    prepare_network(
        objective,
        fabric,
        sync_batchnorm=config.sync_batchnorm,
        compile_network=machine.compiles(config, fabric),
    )
    saved = _saved(fabric, folder) if resume else None
    if config.tuning.part == "head":
        if saved is not None:  # the network of the start is in the checkpoint alone
            restore_weights(saved.tensors, objective)
        views: Steps[Any] = step_features(objective.encoder, pictures, config, folder)
    else:
        views = _step_views(pictures, config, folder)
    clock = config.first_clock(views.steps_per_epoch)
    late = late_layers(objective, config, total_steps=clock.total_steps)
    optimizer = config.optim.build(objective, objective.lr_multipliers, late)
    session = Session(
        fabric,
        folder,
        config,
        pictures,
        objective,
        optimizer,
        views,
        clock,
        num_listed,
        allow_factory=allow_factory,
    )
    if saved is not None:
        _continue(session, saved)
    if fabric.is_global_zero:
        _write_start(session, recipe, start)
    return session


def _step_views(pictures: Pictures, config: TrainConfig, folder: Path) -> StepViews:
    return StepViews(
        pictures,
        config.views,
        global_batch=config.optim.batch_size,
        accumulate=config.optim.accumulate,
        seed=config.seed,
        pipeline=config.views.pipeline,
        on_bad_file=partial(append_bad_file, folder),
        pretext=config.method.pretext,
        image_groups=config.views.image_groups(pictures),
    )


def save(session: Session, seconds: float) -> bool:
    """Publish a checkpoint; a full disk costs the checkpoint, not the run. Same on all ranks."""
    if session.saved_step == session.clock.step:
        return True
    by_rank = statistics_of_ranks(session.objective)
    with synchronised_statistics(session.objective):
        state = session.objective.state_dict()  # on every rank: memory banks are gathered
        failed = on_any_rank(
            session.fabric.is_global_zero and not _publish(session, state, by_rank, seconds)
        )
    session.saved_step = session.saved_step if failed else session.clock.step
    return not failed


def unsaved(session: Session) -> OSError:
    """Return that the last step could not be saved, and what to do about it."""
    again = session.clock.step - max(session.saved_step, 0)
    return OSError(
        f"training is complete, but the state of its last step, step {session.clock.step}, could "
        f"not be saved ({session.save_failure or 'see the first rank'}), and nothing is made of "
        f"weights that are not saved: free the disk, then --resume --out {session.folder} does "
        f"the last {again} steps again"
    )


def on_any_rank(flag: bool) -> bool:
    """Return whether ``flag`` holds on any rank."""
    if distributed.world_size() == 1:
        return flag
    return bool(distributed.all_reduce_max(torch.tensor(int(flag))))


@contextmanager
def on_all_ranks() -> Iterator[None]:
    """Have every rank leave when one cannot go on: the others would wait for it for ever.

    Raises:
        ElsewhereError: on the ranks that had no reason of their own.
    """
    try:
        yield
    except Exception:
        on_any_rank(True)
        raise
    if on_any_rank(False):
        raise ElsewhereError("another rank cannot go on: its message says why")


def _publish(
    session: Session, state: Mapping[str, Any], by_rank: Mapping[str, Tensor], seconds: float
) -> bool:
    clock, named = session.clock, session.objective.named_parameters()
    meta = {
        "step": clock.step,
        "epoch": clock.epoch,
        "images": clock.images,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "ranks": distributed.world_size(),
        "versions": dict(installed_versions()),
    }
    tensors = flatten(state, session.optimizer, named, loss_scaler(session.fabric))
    tensors |= {RANK_STATISTICS + name: values.cpu() for name, values in by_rank.items()}
    try:
        save_checkpoint(session.folder, step=clock.step, tensors=tensors, meta=meta)
    except OSError as error:
        size = sum(tensor.nbytes for tensor in tensors.values())
        session.save_failure = f"{error}; it takes {1.2 * size / 1e6:.1f} MB of free disk"
        after = "" if session.is_trained else ": training goes on"
        logger.warning("could not save step %d (%s)%s", clock.step, session.save_failure, after)
        return False
    with suppress(OSError, ValueError):  # a full disk or damage does not undo the checkpoint
        write_record(session.folder, saved_step=clock.step)
    return True


def _saved(fabric: Fabric, folder: Path) -> Checkpoint | None:
    """Return the newest valid checkpoint, on every rank the same; None if there is none yet."""
    with on_all_ranks():
        found = _newest(folder) if fabric.is_global_zero else None
    newest = torch.tensor(-1 if found is None else found.step)
    step = int(distributed.all_reduce_max(newest))
    if step < 0:
        logger.info("no checkpoint yet: starting at step 0")
        return None
    return found or load_checkpoint(layout.checkpoint(folder, step))


def _continue(session: Session, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into the session."""
    step, scaler = checkpoint.step, loss_scaler(session.fabric)
    tensors = dict(checkpoint.tensors)
    by_rank = {
        key.removeprefix(RANK_STATISTICS): tensors.pop(key)
        for key in checkpoint.tensors
        if key.startswith(RANK_STATISTICS)
    }
    restore(tensors, session.objective, session.optimizer, scaler)
    machine.restore(checkpoint.meta)
    session.clock = session.clock.at(step, global_batch=session.config.optim.batch_size)
    session.seconds = float(checkpoint.meta["seconds"])
    session.saved_step = step
    if session.is_trained:
        logger.info("all %d steps are done: making what is missing", step)
        return
    take_own_statistics(session.objective, by_rank)
    if session.fabric.is_global_zero:
        _record_resume(session)
    logger.info("continuing at step %d of %d", step, session.clock.total_steps)


def _newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint; None only where there has never been one."""
    found = newest_checkpoint(folder)
    if found is None and (saved := read_record(folder).get("saved_step")):
        raise ValueError(
            f"{folder / layout.RECORD} says that step {saved} was saved, and {layout.CHECKPOINTS}/ "
            "holds no checkpoint: bring it back, or start a new run with another --out "
            f"(--init {folder / layout.MODEL} keeps the weights, if the run was finished)"
        )
    return found


def _record_resume(session: Session) -> None:
    record, step = read_record(session.folder), session.clock.step
    if record.get("status") == "finished":
        logger.warning(
            "this run finished at step %s, but its newest checkpoint that can be read is of step "
            "%d: training the rest again; what the run made stays until that is done",
            record.get("outputs_step", session.clock.total_steps),
            step,
        )
    resumes = [*record.get("resumes", []), {"step": step, "time": now()}]
    write_record(session.folder, resumes=resumes)


def _write_start(session: Session, recipe: str, start: StartWeights | None) -> None:
    config, folder = session.config, session.folder
    if not session.is_trained:
        write_config(folder, swav.config.to_dict(config))
    record = read_record(folder)
    if "num_images" not in record:
        write_record(
            folder,
            data=config.data.data,
            recipe=recipe,
            method=config.method.name,
            method_title=config.method.title,
            backbone=config.backbone.title,
            tune=config.tune,
            **({} if start is None else {"start": start.record}),
            num_images=len(session.pictures),
            pictures=_described(session.pictures),
            fingerprint=session.pictures.fingerprint,
            seed=config.seed,
            command=shlex.join(sys.argv),
            started=now(),
            versions=dict(installed_versions()),
            machine=machine.describe(session.fabric, session.config),
            resumes=record.get("resumes", []),
        )
    if not session.is_trained:
        write_record(folder, status="running", outputs_outdated=True)
        write_bad_files(folder, session.pictures.bad_files)
        if isinstance(session.views, StepViews):
            draw_views(folder, session.pictures, config)


def _described(pictures: Pictures) -> dict[str, int]:
    """Return what the model's card says of the pictures."""
    facts = pictures.facts()
    return {"height": facts.height, "width": facts.width, "classes": facts.num_classes}
