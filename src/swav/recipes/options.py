"""From the options of a training to its config: where it starts, and what they change in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, get_args, runtime_checkable

from swav.config import UnknownNameError, UsageError
from swav.data.sources.pictures import DataFacts, Pictures
from swav.methods import MethodConfig
from swav.nn.backbones import BackboneConfig
from swav.nn.heads import HeadConfig
from swav.recipes import find_recipe, make_config, with_channels
from swav.recipes.start_network import RANDOM
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.run_folder import layout
from swav.run_folder.record import check_continuable, read_record

METHODS: dict[str, type[MethodConfig]] = {
    cls.name: cls for cls in get_args(MethodConfig) or (MethodConfig,)
}
"""The config of every method, by its name."""

TYPICAL = DataFacts(
    num_images=10_000, height=224, width=224, channels=3, num_classes=0, in_memory=True
)
"""Stands in for pictures that are not known yet, so that ``auto`` has options to name."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a config starts (a recipe, a file, or a run to continue), and how the run is done."""

    recipe: str | None = None
    """Settings to start from; by default auto (see swav list recipes)."""
    config: Path | None = None
    """The same from a file, such as a run's config.yaml."""
    out: Path | None = None
    """Run folder; by default a new one under runs/."""
    resume: bool = False
    """Continue the interrupted run in --out."""
    init: str | None = None
    """Weights of the backbone to start from: random (the default), timm (published ones of the
    backbone), lite0 (of EfficientNet-Lite0), a run folder or a weights file."""
    tune: str | None = None
    """What is trained of the weights of --init: head (nothing of the network: prototypes, on its
    features), last:N (the last N stages) or all; by default what the recipe chooses."""
    allow_missing: bool = False
    """Start even if weights of the backbone are missing in what --init names: they are random."""
    dry_run: bool = False
    """Print the plan, with time and memory, and stop."""
    method: str | None = None
    """Another method with its defaults (swav list methods)."""
    backbone: str | None = None
    """A timm model, or module:factory; its arguments are --backbone.args.NAME VALUE."""
    crops: str | None = None
    """Counts and sizes of the views, such as 2x224,6x96."""
    channels: int | None = None
    """Short for --data.channels."""
    split: str | None = None
    """Short for --data.split."""
    allow_factory: tuple[str, ...] = ()
    """Run this package.module:function if a config or run names it as its backbone; may be
    repeated."""

    def __post_init__(self) -> None:
        if self.recipe is not None and self.config is not None:
            raise UsageError("--recipe and --config both give a whole config: leave one out")
        if self.resume and self.out is None:
            raise UsageError("--resume continues the run in a folder: name it with --out")
        find_recipe(self.recipe_name)
        if self.method is not None and self.method not in METHODS:
            raise UnknownNameError("method", self.method, METHODS)

    @property
    def recipe_name(self) -> str:
        """The recipe in the form of the command line."""
        return (self.recipe or "auto").replace("_", "-")

    @property
    def stored(self) -> Path | None:
        """The config of the run to continue, if it got so far as to have one."""
        path = self.out / layout.CONFIG if self.resume and self.out is not None else None
        return path if path is not None and path.exists() else None

    @property
    def needs_pictures(self) -> bool:
        """Whether the config depends on the pictures."""
        given = self.config is not None or self.stored is not None
        return not given and find_recipe(self.recipe_name).reads_data

    @property
    def label(self) -> str:
        """What the run's record calls its recipe."""
        if self.config is not None:
            return str(self.config)
        return self._stored_recipe or self.recipe_name

    def read(self, facts: DataFacts = TYPICAL, device: str = "auto") -> TrainConfig:
        """Return the config, for a recipe that needs them by facts about the pictures.

        Raises:
            ValueError: if the run to continue was started with another recipe.
        """
        if self.config is not None:
            config = read_train_config(self.config)
        elif self.stored is not None:
            check_continuable(self.stored.parent)
            if self.recipe is not None and self._stored_recipe not in (None, self.recipe_name):
                raise ValueError(
                    f"{self.out} was started with recipe {self._stored_recipe}, not "
                    f"{self.recipe_name}: leave out --recipe to continue it, or give another --out"
                )
            config = read_train_config(self.stored)
        else:
            backbone = None if self.backbone is None else BackboneConfig(name=self.backbone)
            init = self.init or RANDOM
            config = make_config(
                self.recipe_name, facts, device, init=init, tune=self.tune, backbone=backbone
            )
        try:
            return self._with_shorthands(config)
        except ValueError as error:  # of a value that was typed, not of a file
            raise UsageError(str(error)) from error

    def _with_shorthands(self, config: TrainConfig) -> TrainConfig:
        if self.init is not None:
            config = replace(config, init=self.init)
        if self.tune is not None:
            config = replace(config, tune=self.tune)
        if self.backbone is not None:
            config = replace(config, backbone=BackboneConfig(name=self.backbone))
        if self.crops is not None:
            config = replace(config, views=config.views.with_crops(self.crops))
        if self.method is not None:
            config = with_narrow_head(with_method(config, self.method), config.method)
        if self.channels is not None:
            config = with_channels(config, self.channels)
        if self.split is not None:
            config = replace(config, data=replace(config.data, split=self.split))
        return config

    @property
    def _stored_recipe(self) -> str | None:
        if self.stored is None:
            return None
        try:
            recipe: str | None = read_record(self.stored.parent).get("recipe")
        except ValueError:
            return None  # the training says what is wrong with it
        return recipe


def complete(
    start: Start, changed: Callable[[TrainConfig], TrainConfig]
) -> tuple[TrainConfig, str | Pictures]:
    """Return the config of a training, and its DATA, opened if that was needed.

    The config is where it starts, then what the options change in it.

    Args:
        start: The recipe, file or run.
        changed: Puts the options in their places; called twice, as ``auto`` needs the pictures that
            options describe, and these may need more or fewer channels.

    Raises:
        ValueError: if there are no pictures to train on, or an option does not fit.
    """
    config = start.read()  # for a recipe that needs pictures, of typical ones
    given = changed(config)
    if not given.data.data:
        raise UsageError(
            "no pictures: give a folder, an archive, an array, clothes, emoji or digits"
        )
    opened = None
    if start.needs_pictures:
        opened = given.data.build()
        config = start.read(opened.facts(), given.device)
    config = changed(with_channels(config, given.data.channels))
    # what auto chooses for the pictures it saw may be to read them in another way
    return config, opened if opened and opened.source == config.data else config.data.data


@runtime_checkable
class HasHead(Protocol):
    """A method with a projection head."""

    head: HeadConfig


def with_narrow_head(config: TrainConfig, usual: MethodConfig) -> TrainConfig:
    """Return ``config`` with a head no wider than that of the recipe's ``usual`` method.

    Where a recipe is for few pictures or a small network, published widths (8,192 of Barlow Twins)
    cost more than all else. Recipes with the published width of 2,048 or more keep those of every
    method.
    """
    method = config.method
    if not isinstance(method, HasHead) or not isinstance(usual, HasHead):
        return config
    most, head = usual.head.hidden_dim, method.head
    if not 0 < most < HeadConfig().hidden_dim or head.hidden_dim <= most:
        return config
    # an embedding narrower than its head stays as published
    embed_dim = min(head.embed_dim, most)
    narrow = replace(head, hidden_dim=most, embed_dim=embed_dim)
    return replace(config, method=replace(method, head=narrow))  # type: ignore[arg-type]


def with_method(config: TrainConfig, name: str) -> TrainConfig:
    """Return ``config`` with the defaults of another method; data, backbone and budget stay."""
    if config.method.name == name:
        return config
    method = METHODS[name]()
    if config.views.num_views < method.min_views:
        raise UsageError(
            f"{name} compares at least {method.min_views} views of a picture, and this recipe has "
            f"{config.views.description}: give --crops as well, or another recipe"
        )
    return replace(config, method=method)
