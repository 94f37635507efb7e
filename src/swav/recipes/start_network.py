"""What a start brings along: its network, and the mean and deviation that it was trained on."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from timm.models import get_pretrained_cfg, is_model

from swav.data.eval_transform import EvalTransform
from swav.data.views.crops import ViewsConfig
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


def with_start(
    config: TrainConfig, init: str, tune: str, backbone: BackboneConfig | None
) -> TrainConfig:
    """Return ``config`` with another start, its network, and the mean and deviation of both.

    Crops for a network of patches have sizes of whole patches.

    Args:
        config: of a recipe.
        init: as ``--init`` has it.
        tune: as ``--tune`` has it.
        backbone: that was asked for; None: what the start is of, or that of the recipe.
    """
    if init == RANDOM:
        return replace(config, tune=tune, backbone=backbone or config.backbone)
    start = _network_of(init, backbone or _guessed(init) or config.backbone)
    views = config.views
    if start.mean is not None and start.std is not None:
        views = replace(views, mean=start.mean, std=start.std)
    network = backbone or start.backbone
    return replace(
        config,
        init=init,
        tune=tune,
        views=_of_whole_patches(views, network.name),
        input=start.input,
        backbone=network,
    )


def _of_whole_patches(views: ViewsConfig, network: str) -> ViewsConfig:
    """Return views whose sizes are multiples of a transformer's patch, which its name tells."""
    groups = (
        replace(
            group,
            size=(whole_patches(group.size[0], network), whole_patches(group.size[1], network)),
        )
        for group in views.groups
    )
    return replace(views, groups=tuple(groups))


def whole_patches(side: int, network: str) -> int:
    """Return the nearest side up to this one, but at least one patch, that a network takes."""
    found = re.search(r"^(?:vit|deit|eva02|beit).*_patch(\d+)", network)
    patch = 1 if found is None else int(found[1])
    return max(side // patch, 1) * patch


@dataclass(frozen=True)
class _StartNetwork:
    backbone: BackboneConfig
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input: EvalTransform | None = None
    """What its weights were trained and published with."""


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
        views, size = run.views, run.views.groups[0].size
        shown = run.input or EvalTransform(
            input_size=(run.data.channels, *size), mean=views.mean, std=views.std
        )
        return _StartNetwork(run.backbone, views.mean, views.std, shown)
    backbone = LITE0_BACKBONE if init == LITE0 else usual
    settings = get_pretrained_cfg(backbone.name) if is_model(backbone.name) else None
    if settings is None:
        return _StartNetwork(backbone)
    shown = EvalTransform.from_timm(asdict(settings))
    return _StartNetwork(backbone, settings.mean, settings.std, shown)
