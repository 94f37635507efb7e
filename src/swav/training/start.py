"""Where the weights of a run start: opened, checked against its backbone, and recorded."""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swav.config import UnknownNameError
from swav.data.eval_transform import EvalTransform
from swav.evals.harness.subject import Shown
from swav.exchange import lite0
from swav.exchange.published import published_file, published_settings
from swav.exchange.weights import ForeignWeights, match, read_weights
from swav.nn.backbones import BackboneConfig
from swav.recipes.auto import PUBLISHED_LEARNING_RATE
from swav.recipes.start_network import (
    LITE0,
    LITE0_BACKBONE,
    RANDOM,
    TIMM,
    is_published,
    with_start,
)
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.run_folder import layout
from swav.run_folder.checkpoint import newest_checkpoint
from swav.run_folder.record import check_continuable, read_record
from swav.training.adaptation import freeze
from swav.training.frozen_features import check_head
from swav.training.networks import build_objective, transform_of, untrained_network
from swav.training.trained_run import load

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """Weights that the backbone of a run starts from, and what is known of them."""

    init: str
    """As ``--init`` has it."""
    name: str
    sha256: str
    """Of the file that was read."""
    layout: str
    """What kind of file it is."""
    tensors: Mapping[str, Tensor]
    """Those of the backbone, by its own names."""
    licence: str | None = None
    adapted: tuple[str, ...] = ()
    """Filters of three colours that were made to fit pictures of other channels."""
    matching: str = ""
    """What else is to say of how file and network fit."""

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` keeps."""
        return {
            "init": self.init,
            "name": self.name,
            "sha256": self.sha256,
            "licence": self.licence,
            "layout": self.layout,
            **({"adapted": list(self.adapted)} if self.adapted else {}),
        }

    @property
    def summary(self) -> str:
        """What it is, what matched and what did not, in a line."""
        licence = f", licence {self.licence}" if self.licence else ""
        matching = self.matching or f"{len(self.tensors)} tensors matched"
        return (
            f"starts from {self.name} ({self.layout}{licence}, sha256 {self.sha256[:12]}): "
            f"{matching}"
        )


def open_start(
    config: TrainConfig, *, allow_missing: bool = False, allow_factory: Collection[str] = ()
) -> StartWeights | None:
    """Open what the ``init`` of a config names; None if that is random.

    Args:
        config: of the run to start.
        allow_missing: leave tensors of the backbone random that are not there or do not fit.
        allow_factory: names of factories that may build the backbone.

    Raises:
        ValueError: if it names nothing, cannot be read or is not of the backbone.
    """
    init = config.init
    if init == RANDOM:
        return None
    if init == TIMM:
        return _published(config)
    if init == LITE0:
        return _lite0(config)
    if layout.is_run(Path(init)):
        return _of_run(config, allow_factory)
    if Path(init).is_file():
        return of_others(
            config,
            read_weights(Path(init)),
            allow_missing=allow_missing,
            allow_factory=allow_factory,
        )
    raise _unknown(init)


def check_start(config: TrainConfig, allow_factory: Collection[str] = ()) -> list[str]:
    """Return what may hurt a training that starts from weights, a sentence each.

    Raises:
        ValueError: if the network does not have what is to be trained.
    """
    if config.init == RANDOM:
        return []
    if config.tuning.part == "head":
        check_head(config)
        return []
    if config.tuning.part == "last":  # before there is a run folder
        freeze(config.backbone.build(config.data.channels, allow_factory=allow_factory), config)
    remarks = [_may_get_worse(config), *_too_fast(config)] if is_published(config.init) else []
    if config.init not in (TIMM, LITE0) and not layout.is_run(Path(config.init)):
        return remarks
    own, given = with_start(config, config.init, config.tune, config.backbone).views, config.views
    if len(own.mean) != len(given.mean) or (own.mean, own.std) == (given.mean, given.std):
        return remarks
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (own.mean, own.std))
    return [
        *remarks,
        f"the weights of --init {config.init} were trained with another mean and deviation than "
        f"pictures have here: --views.mean {mean} --views.std {std}",
    ]


def _may_get_worse(config: TrainConfig) -> str:
    what = "all weights" if config.tuning.part == "all" else "weights"
    return (
        f"{what} of --init {config.init} are trained further, which can make features worse than "
        "they were (docs/log.md): the start stands, frozen, beside the scores of the run"
    )


def _too_fast(config: TrainConfig) -> list[str]:
    """Return a warning of a rate at which published weights do not last, of Adam's alone."""
    rate = config.optim.learning_rate
    if config.optim.optimizer != "adamw" or rate <= PUBLISHED_LEARNING_RATE:
        return []
    return [
        f"adamw at {rate:g} makes published weights soon forget what they know: use "
        f"--optim.learning-rate {PUBLISHED_LEARNING_RATE:g} or less"
    ]


def transform_of_start(config: TrainConfig) -> EvalTransform:
    """Return what pictures are turned into for the network of the start, frozen.

    Size, mean, deviation and interpolation are those its weights were published with, or of the
    run they are from; where neither is known, those of this training.
    """
    if config.input is not None:
        return config.input
    if layout.is_run(Path(config.init)):
        return transform_of(read_train_config(Path(config.init) / layout.CONFIG))
    settings = published_settings(config.backbone.name)
    if config.init == RANDOM or settings is None or config.data.channels != 3:
        return transform_of(config)
    return EvalTransform.from_timm(asdict(settings))


@dataclass(frozen=True, kw_only=True)
class Before:
    """The networks that a run began with, each opened once, when it is first asked for."""

    config: TrainConfig
    folder: Path
    """Of the run."""
    num_images: int
    """Pictures it was trained on."""
    allow_factory: Collection[str] = ()
    """Names of factories that may build its network."""
    device: torch.device | str = "cpu"

    @cached_property
    def untrained(self) -> nn.Module:
        """The network of the run with random weights."""
        network = untrained_network(
            self.config, num_images=self.num_images, allow_factory=self.allow_factory
        )
        return network.to(self.device)

    @cached_property
    def start(self) -> Shown | None:
        """What it started from, with the input that the weights know; None if that was random.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is no longer there, or is another.
        """
        if self.config.init == RANDOM:
            return None
        weights = _as_recorded(self.config, self.folder, self.allow_factory)
        objective = build_objective(
            self.config,
            num_images=self.num_images,
            weights=weights.tensors,
            allow_factory=self.allow_factory,
        )
        return Shown(objective.encoder.to(self.device), transform_of_start(self.config))

    @cached_property
    def start_if_there(self) -> Shown | None:
        """The same, with a warning in place of an error."""
        try:
            return self.start
        except (OSError, ValueError) as error:
            folder = self.folder
            logger.warning("what %s started from is not beside its scores: %s", folder, error)
            return None

    @property
    def network(self) -> Shown:
        """The start, or the untrained network where that was random; raises as ``start`` does."""
        return self.start or Shown(self.untrained, transform_of(self.config))


def _as_recorded(config: TrainConfig, folder: Path, allow_factory: Collection[str]) -> StartWeights:
    """Return the start of a run that has begun; raises a ValueError if it is gone or another."""
    if config.init not in (TIMM, LITE0) and not Path(config.init).exists():
        raise ValueError(f"{Path(config.init).absolute()} is not there")
    # the training was allowed to leave some random if there are any
    start = open_start(config, allow_missing=True, allow_factory=allow_factory)
    assert start is not None
    before = (read_record(folder).get("start") or {}).get("sha256", start.sha256)
    if start.sha256 != before:
        raise ValueError(
            f"--init {config.init} now has other weights (sha256 {before}, now {start.sha256})"
        )
    return start


def starting(
    config: TrainConfig, folder: Path | None, open_it: Callable[[], StartWeights | None]
) -> StartWeights | None:
    """Return what a run starts from, None where its checkpoint has all weights already.

    Args:
        config: of the run.
        folder: of the run to continue, None for a new one.
        open_it: opens the start.

    Raises:
        ValueError: if it is not the start of the run to continue, or there is none.
    """
    if folder is not None:
        check_continuable(folder)
    if config.init == RANDOM:
        return None
    if folder is None:
        return open_it()
    if newest_checkpoint(folder, repair=False) is not None:
        return None
    start, before = open_it(), read_record(folder).get("start")
    if start is not None and before is not None and start.sha256 != before["sha256"]:
        raise ValueError(
            f"the run to continue started from other weights than {config.init} now has (sha256 "
            f"{before['sha256']}, now {start.sha256}): bring the file back, or start a new run "
            "with another --out"
        )
    return start


def _unknown(init: str) -> ValueError:
    if Path(init).is_dir():
        return ValueError(
            f"--init {init} is no run folder (no {layout.CONFIG}): give the --out of a training, "
            "or a weights file"
        )
    names = (RANDOM, TIMM, LITE0)
    return UnknownNameError(
        "--init", init, (*names, "RUN (a run folder)", "FILE (a weights file that is there)")
    )


def _published(config: TrainConfig) -> StartWeights:
    backbone = config.backbone
    settings = published_settings(backbone.name)
    if settings is None or not _is_plain(backbone):
        raise ValueError(
            f"--init timm: there are no published weights of {backbone.title}: leave out "
            "--recipe and --backbone to take a resnet18, or name a --backbone that has some "
            "(`timm.list_models(pretrained=True)` lists them)"
        )
    path = published_file(backbone.name)
    try:
        network = backbone.build(config.data.channels, published=path)
    except Exception as error:  # files fail in many ways
        raise ValueError(
            f"--init timm: {path} does not hold the weights of {backbone.title} "
            f"({(str(error) or repr(error)).splitlines()[0][:200]}): remove it, and the next run "
            "fetches it again"
        ) from error
    return StartWeights(
        init=config.init,
        name=".".join(filter(None, (settings.architecture or backbone.name, settings.tag))),
        sha256=_sha256(path),
        licence=settings.license,
        layout=TIMM,
        tensors=network.state_dict(),
    )


def _is_plain(config: BackboneConfig) -> bool:
    """Return whether a network has the tensors of the plain one of its name."""
    if not config.args:
        return True
    with torch.device("meta"):
        own, plain = (each.build() for each in (config, BackboneConfig(name=config.name)))
    return _shapes(own) == _shapes(plain)


def _lite0(config: TrainConfig) -> StartWeights:
    if config.backbone.name != LITE0_BACKBONE.name:
        raise ValueError(
            f"--init lite0 has the weights of {LITE0_BACKBONE.name}, this run has "
            f"{config.backbone.title}: leave out --backbone, or give --backbone "
            f"{LITE0_BACKBONE.name}; --init timm or FILE start other networks"
        )
    return of_others(config, lite0.read(), allow_missing=False)


def _of_run(config: TrainConfig, allow_factory: Collection[str]) -> StartWeights:
    folder = Path(config.init)
    source = load(folder, allow_factory=allow_factory)
    channels = source.config.data.channels, config.data.channels
    if (source.config.backbone, channels[0]) != (config.backbone, channels[1]):
        raise ValueError(
            f"--init {folder} holds {source.config.backbone.title} for {channels[0]} channels, "
            f"this run has {config.backbone.title} for {channels[1]}: use the same "
            f"backbone (--config {folder / layout.CONFIG} takes all settings of that run)"
        )
    assert source.checkpoint is not None, "load has opened one"
    return StartWeights(
        init=config.init,
        name=folder.resolve().name,
        sha256=_sha256(source.checkpoint / layout.STATE),
        licence=read_record(folder).get("start", {}).get("licence"),
        layout="run",
        tensors=source.backbone.state_dict(),
    )


def of_others(
    config: TrainConfig,
    foreign: ForeignWeights,
    *,
    allow_missing: bool,
    allow_factory: Collection[str] = (),
) -> StartWeights:
    """Return what the backbone of a config takes from weights that were read.

    Raises:
        ValueError: if they are not of that network.
    """
    backbone = config.backbone.build(config.data.channels, allow_factory=allow_factory)
    try:
        found = match(backbone.state_dict(), foreign, allow_missing=allow_missing)
    except ValueError as error:
        raise ValueError(
            f"--init {config.init} for {config.backbone.title} with {config.data.channels} "
            f"channels: {error} (--backbone NAME, --allow-missing)"
        ) from error
    return StartWeights(
        init=config.init,
        name=foreign.source.name,
        sha256=foreign.sha256,
        licence=foreign.licence,
        layout=foreign.layout,
        tensors={name: found.state[name] for name in found.matched},
        adapted=found.adapted,
        matching=found.summary(),
    )


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
