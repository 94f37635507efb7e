"""``swav import``: the weights of others as a run folder, head and prototypes included.

Nothing was trained: the folder has no metrics, no report and no optimiser to continue with. Its
checkpoint, record, config and ``model/`` are those of a run.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from swav.config import UsageError, to_dict
from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import SourceConfig
from swav.engine import Objective
from swav.exchange.from_state_dict import guess_network, is_torchvision, published_input
from swav.exchange.to_timm import save_timm
from swav.exchange.weights import ForeignWeights, read_weights
from swav.methods import SwAVConfig
from swav.methods.cluster_prediction import ClusterPredictionConfig
from swav.nn.backbones import BackboneConfig
from swav.recipes import make_config
from swav.recipes.options import TYPICAL
from swav.recipes.start_network import LITE0, LITE0_BACKBONE, TIMM
from swav.recipes.train_config import TrainConfig
from swav.run_folder import layout
from swav.run_folder.atomic import flush_to_disk
from swav.run_folder.checkpoint import save_checkpoint
from swav.run_folder.config_file import write_config
from swav.run_folder.record import IMPORTED, now, write_record
from swav.run_folder.result import installed_versions
from swav.run_folder.state import flatten
from swav.training.imported_heads import fill_heads, method_of
from swav.training.networks import build_objective
from swav.training.outputs import model_readme
from swav.training.start import StartWeights, of_others, open_start

PROTOTYPES_A_PICTURE = 16
"""Of one batch; SwAV refuses to have more (``nn.queue.check_reach``)."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Weights of others in the networks of a run. Nothing is written yet."""

    config: TrainConfig
    objective: Objective
    start: StartWeights
    transform: EvalTransform
    num_head_tensors: int
    """Of projection head and prototypes."""
    left_out: int
    """Prototypes of the file that the method has no use for."""

    @property
    def summary(self) -> list[str]:
        """What was found, a line each."""
        start, shown = self.start, self.transform
        height, width = shown.input_size[1:]
        mean, std = (" ".join(f"{value:g}" for value in each) for each in (shown.mean, shown.std))
        return [
            f"{start.name}: layout {start.layout}, licence {start.licence or 'not known'}, "
            f"sha256 {start.sha256}",
            f"backbone {self.config.backbone.title}: {self._matching}",
            f"head: {self._head}",
            f"pictures: {height}x{width}, {shown.interpolation}, crop_pct {shown.crop_pct:g}, "
            f"mean {mean}, deviation {std}",
        ]

    @property
    def _matching(self) -> str:
        return self.start.matching or f"{len(self.start.tensors)} tensors matched"

    @property
    def _head(self) -> str:
        method, count = self.config.method, f"{self.num_head_tensors} tensors matched"
        if isinstance(method, SwAVConfig | ClusterPredictionConfig):
            numbers = " + ".join(map(str, method.num_prototypes))
            return f"{count}, {numbers} prototypes, as of {method.title}"
        found = f"{count}, as of {method.title}" if self.num_head_tensors else "none"
        prototypes = f"{self.left_out} prototypes left out" if self.left_out else "no prototypes"
        return f"{found}; {prototypes}, so swav cluster makes k-means of the features"

    def write(self, out: str | Path) -> Path:
        """Write the run folder, all of it at once, and return it.

        Raises:
            ValueError: if there is something in its place.
        """
        folder = Path(out).absolute()
        check_vacant(folder)
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            self._fill(unfinished)
            unfinished.rename(folder)  # which replaces an empty one
            flush_to_disk(folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return Path(out)

    def _fill(self, folder: Path) -> None:
        config, objective, start = self.config, self.objective, self.start
        write_config(folder, to_dict(config))
        # one that has done no step, and so has no state
        optimizer = config.optim.build(objective, objective.lr_multipliers)
        save_checkpoint(
            folder,
            step=0,
            tensors=flatten(objective.state_dict(), optimizer, objective.named_parameters()),
            meta={"step": 0, "versions": dict(installed_versions())},
        )
        write_record(
            folder,
            status=IMPORTED,
            method=config.method.name,
            method_title=config.method.title,
            backbone=config.backbone.title,
            start=start.record,
            matching=self._matching,
            head=self._head,
            num_images=None,  # of what was trained on, nothing is known
            outputs_step=0,
            command=shlex.join(sys.argv),
            started=now(),
            versions=dict(installed_versions()),
        )
        save_timm(
            objective.encoder,
            folder / layout.MODEL,
            config=config.backbone,
            transform=self.transform,
            readme=model_readme(folder, config, objective),
        )


def import_weights(
    file: str | Path,
    *,
    out: str | Path,
    backbone: str | BackboneConfig | None = None,
    method: str | None = None,
    allow_missing: bool = False,
) -> Path:
    """Make a run folder of the weights of others, and return it.

    Args:
        file: of weights; or ``lite0``, or a network of timm, for their published weights.
        out: run folder, which is new or empty.
        backbone: network of timm that the weights are of; by default what the file tells.
        method: whose head and prototypes they are; by default what the file has.
        allow_missing: leave tensors of the backbone random that the file does not have.

    Raises:
        ValueError: if they cannot be read or do not fit; nothing is written then.
    """
    check_vacant(Path(out))
    if isinstance(backbone, str):
        backbone = BackboneConfig(name=backbone)
    opened = open_import(str(file), backbone, method=method, allow_missing=allow_missing)
    return opened.write(out)


def check_vacant(folder: Path) -> None:
    """Raise a ValueError if there is something in the place of a new folder."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: choose another --out")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder: choose another --out")


def open_import(
    word: str,
    backbone: BackboneConfig | None = None,
    *,
    method: str | None = None,
    allow_missing: bool = False,
) -> Imported:
    """Return the weights that a word names, in the networks of a run.

    Raises:
        ValueError: if it names none, or they do not fit.
    """
    foreign = read_weights(Path(word)) if Path(word).is_file() else None
    if foreign is None:
        init, network = _published(word, backbone)
    else:
        init, network = word, backbone or _guessed(foreign)
    config = _config(init, network, foreign, method)
    start = _start(config, foreign, allow_missing=allow_missing)
    objective = build_objective(config, num_images=0, weights=start.tensors).eval()
    has_clusters = isinstance(config.method, SwAVConfig | ClusterPredictionConfig)
    is_guessed = foreign is not None and backbone is None
    transform = _transform(config, objective, start, is_guessed=is_guessed)
    views = replace(config.views, mean=transform.mean, std=transform.std)
    return Imported(
        config=replace(config, views=views, input=transform),
        objective=objective,
        start=start,
        transform=transform,
        num_head_tensors=fill_heads(objective, foreign) if foreign and foreign.head else 0,
        left_out=0 if has_clusters or foreign is None else sum(map(len, foreign.prototypes)),
    )


def _start(
    config: TrainConfig, foreign: ForeignWeights | None, *, allow_missing: bool
) -> StartWeights:
    """Return the weights of the backbone; errors do not speak of the option of swav train."""
    try:
        if foreign is not None:
            return of_others(config, foreign, allow_missing=allow_missing)
        start = open_start(config)
    except ValueError as error:
        text = str(error).replace("--init timm: ", "").replace("--init ", "")
        raise ValueError(text) from error
    assert start is not None, "what is random has no name here"
    return start


def _published(word: str, backbone: BackboneConfig | None) -> tuple[str, BackboneConfig]:
    """Return the start and the network of weights that have a name."""
    if layout.is_run(Path(word)):
        raise UsageError(f"{word} is a run folder already: nothing is to be imported")
    name = word.removeprefix("timm:")
    if word != LITE0 and not timm.is_model(name):
        raise UsageError(
            f"{word} is no file that is there, and no network of timm: give a file of weights, "
            "lite0, or timm:NAME"
        )
    network = LITE0_BACKBONE if word == LITE0 else BackboneConfig(name=name)
    if backbone not in (None, network):
        raise UsageError(f"{word} are weights of {network.name}: leave out --backbone")
    return (LITE0 if word == LITE0 else TIMM), network


def _guessed(foreign: ForeignWeights) -> BackboneConfig:
    """Return the network that a file tells.

    Raises:
        ValueError: if it tells none that timm has.
    """
    try:
        name = guess_network(foreign.backbone, foreign.source)
    except ValueError as error:
        raise ValueError(
            f"{foreign.source} ({foreign.layout} layout) does not tell which network it is of: "
            "name one of timm with --backbone (swav list backbones)"
        ) from error
    if not timm.is_model(name):
        raise ValueError(
            f"{foreign.source} is of torchvision's {name}, and run folders have networks of timm: "
            "swav evaluate measures the file as it is"
        )
    return BackboneConfig(name=name)


def _config(
    init: str, backbone: BackboneConfig, foreign: ForeignWeights | None, method: str | None
) -> TrainConfig:
    """Return the settings of a training from these weights on pictures that are not known yet."""
    stem = None if foreign is None else foreign.backbone.get("conv1.weight")
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else TYPICAL.channels
    facts = replace(TYPICAL, channels=channels)
    config = make_config("auto", facts, init=init, backbone=backbone)
    config = replace(config, data=SourceConfig(channels=channels))
    config = replace(config, method=method_of(config, foreign, method))
    return replace(config, optim=replace(config.optim, batch_size=_batch_size(config)))


def _batch_size(config: TrainConfig) -> int:
    """Return that of the config, or the power of two that so many prototypes need."""
    method = config.method
    if not isinstance(method, SwAVConfig | ClusterPredictionConfig):
        return config.optim.batch_size
    least = -(-max(method.num_prototypes) // PROTOTYPES_A_PICTURE)
    return max(config.optim.batch_size, 1 << (least - 1).bit_length())


def _transform(
    config: TrainConfig, objective: Objective, start: StartWeights, *, is_guessed: bool
) -> EvalTransform:
    """Return what pictures are turned into for the weights: as they were published.

    The ResNets of papers see 224 of 256 pixels, bilinear, whatever timm does with its own; where
    only the layout tells, mean and deviation are those of ImageNet.
    """
    name, is_plain = config.backbone.name, start.layout in ("plain", LITE0, TIMM)
    settings: Mapping[str, Any] = vars(objective.encoder)["pretrained_cfg"]
    if is_torchvision(name) and (is_guessed or not is_plain):
        settings = published_input(name, start.name)
    elif not is_plain:
        settings = {**settings, "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    channels, size = config.data.channels, settings["input_size"][1:]
    side = config.backbone.args.get("img_size")
    if side is not None:
        size = (side, side) if isinstance(side, int) else side
    known = len(settings["mean"]) == channels
    return EvalTransform.from_timm(
        {
            **settings,
            "input_size": (channels, *size),
            "mean": settings["mean"] if known else config.views.mean,
            "std": settings["std"] if known else config.views.std,
        }
    )
