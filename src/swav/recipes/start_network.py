"""What a start brings along: its network, and the mean and deviation that it was trained on."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from timm.models import get_pretrained_cfg, is_model

from swav.exchange import lite0
from swav.exchange.from_state_dict import guess_network
from swav.exchange.weights import read_weights
from swav.nn.backbones import BackboneConfig
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.run_folder import layout
from swav.run_folder.record import is_imported

RANDOM, TIMM, LITE0 = "random", "timm", "lite0"
LITE0_BACKBONE = BackboneConfig(name=lite0.NETWORK)


def is_published(init: str) -> bool:
    """Return whether a start is weights of others: neither random nor of a training."""
    return init != RANDOM and (not layout.is_run(Path(init)) or is_imported(Path(init)))


def with_start(config: TrainConfig, init: str, backbone: BackboneConfig | None) -> TrainConfig:
    """Return ``config`` with another start, its network, and the mean and deviation of both.

    Args:
        config: of a recipe.
        init: as ``--init`` has it.
        backbone: that was asked for; None: what the start is of, or that of the recipe.
    """
    if init == RANDOM:
        return config if backbone is None else replace(config, backbone=backbone)
    start = _network_of(init, backbone or _guessed(init) or config.backbone)
    views = config.views
    if start.mean is not None and start.std is not None:
        views = replace(views, mean=start.mean, std=start.std)
    return replace(config, init=init, views=views, backbone=backbone or start.backbone)


@dataclass(frozen=True)
class _StartNetwork:
    backbone: BackboneConfig
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def _guessed(init: str) -> BackboneConfig | None:
    """Return the network of a weights file that tells it; what is wrong with it comes later."""
    path = Path(init)
    if not path.is_file():
        return None
    name = _name_in(path, path.stat().st_mtime_ns)
    return None if name is None else BackboneConfig(name=name)


@cache
def _name_in(path: Path, changed: int) -> str | None:  # noqa: ARG001  # part of the key
    with suppress(ValueError):
        name = guess_network(read_weights(path).backbone, path)
        return name if is_model(name) else None
    return None


def _network_of(init: str, usual: BackboneConfig) -> _StartNetwork:
    """Return the network of a start, as far as it says one."""
    if layout.is_run(Path(init)):
        run = read_train_config(Path(init) / layout.CONFIG)
        return _StartNetwork(run.backbone, run.views.mean, run.views.std)
    backbone = LITE0_BACKBONE if init == LITE0 else usual
    settings = get_pretrained_cfg(backbone.name) if is_model(backbone.name) else None
    if settings is None:
        return _StartNetwork(backbone)
    return _StartNetwork(backbone, settings.mean, settings.std)
