"""From the options of a training to its config: where it starts, and what they change in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from swav.config import UnknownNameError, UsageError, load, with_values
from swav.data.sources.pictures import DataFacts
from swav.methods import MethodConfig
from swav.nn.backbones import BackboneConfig
from swav.recipes import RECIPES, make_config, with_channels
from swav.recipes.train_config import TrainConfig

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
    """Where a config starts: a recipe, a file, or the run that is to be continued."""

    recipe: str | None = None
    config: Path | None = None
    method: str | None = None
    out: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.recipe is not None and self.config is not None:
            raise UsageError("--recipe and --config both give a whole config: leave one out")
        if self.resume and self.out is None:
            raise UsageError("--resume continues the run in a folder: name it with --out")
        for kind, name, valid in (
            ("recipe", self.recipe_name, list(RECIPES)),
            ("method", self.method or "swav", list(METHODS)),
        ):
            if name not in valid:
                raise UnknownNameError(kind, name, valid)

    @property
    def recipe_name(self) -> str:
        """The recipe in the form of the command line."""
        return (self.recipe or "auto").replace("_", "-")

    @property
    def stored(self) -> Path | None:
        """The config of the run to continue, if it got so far as to have one."""
        path = self.out / "config.yaml" if self.resume and self.out is not None else None
        return path if path is not None and path.exists() else None

    @property
    def needs_pictures(self) -> bool:
        """Whether the config depends on the pictures."""
        given = self.config is not None or self.stored is not None
        return not given and RECIPES[self.recipe_name].reads_data

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
            config = load(TrainConfig, self.config)
        elif self.stored is not None:
            if self.recipe is not None and self._stored_recipe not in (None, self.recipe_name):
                raise ValueError(
                    f"{self.out} was started with recipe {self._stored_recipe}, not "
                    f"{self.recipe_name}: leave out --recipe to continue it, or give another --out"
                )
            config = load(TrainConfig, self.stored)
        else:
            config = make_config(self.recipe_name, facts, device)
        return config if self.method is None else with_method(config, self.method)

    @property
    def _stored_recipe(self) -> str | None:
        path = self.stored.with_name("run.json") if self.stored is not None else None
        if path is None or not path.exists():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return None  # the training says what is wrong with it
        return record.get("recipe") if isinstance(record, dict) else None


def complete(
    start: Start,
    values: Mapping[str, Any],
    *,
    backbone: str | None = None,
    crops: str | None = None,
) -> TrainConfig:
    """Return the config of a training: where it starts, then the options in their places.

    Args:
        start: The recipe, file or run.
        values: By path, such as ``{"optim.batch_size": 64}``; these come last.
        backbone: A name, with no arguments.
        crops: Counts and sizes of the views, such as ``2x224,6x96``.

    Raises:
        ValueError: if there are no pictures to train on, or an option does not fit.
    """
    config = start.read()
    place = {path: value for path, value in values.items() if path.startswith("data.")}
    source = with_values(config, place).data
    if not source.data:
        raise UsageError("no pictures: give a folder, an archive, an array, emoji or digits")
    if start.needs_pictures:
        config = start.read(source.build().facts(), values.get("device", "auto"))
    if backbone is not None:
        config = replace(config, backbone=BackboneConfig(name=backbone))
    if crops is not None:
        config = replace(config, views=config.views.with_crops(crops))
    return with_values(with_channels(config, source.channels), values)


def with_method(config: TrainConfig, name: str) -> TrainConfig:
    """Return ``config`` with the defaults of another method; data, backbone and budget stay."""
    return config if config.method.name == name else replace(config, method=METHODS[name]())
