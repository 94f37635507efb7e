"""Recipes: functions that return complete training configs, by the names of the command line."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType

from swav.config import UnknownNameError
from swav.data.sources.pictures import DataFacts, Pictures
from swav.nn.backbones import BackboneConfig
from swav.recipes import cifar10_cpu, demo, imagenet_others, imagenet_swav, small_gpu
from swav.recipes.auto import auto, explain, with_small_input
from swav.recipes.start_network import RANDOM, with_start
from swav.recipes.train_config import TrainConfig

__all__ = ["RECIPES", "Recipe", "TrainConfig", "explain", "make_config", "with_channels"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe as the command line shows it."""

    name: str
    description: str
    """What it is in a line, then source, hardware and result."""
    build: Callable[[DataFacts | None, str, str, str | None], TrainConfig]
    """From what is known of the pictures (None: nothing), a device, a start and what is trained of
    it (None: what the recipe chooses)."""
    reads_data: bool = False
    """Whether ``build`` needs to know the pictures."""

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.splitlines()[0]


def make_config(
    name: str,
    pictures: Pictures | DataFacts | None = None,
    device: str = "auto",
    *,
    init: str = RANDOM,
    tune: str | None = None,
    backbone: BackboneConfig | None = None,
) -> TrainConfig:
    """Return a recipe's config for these pictures, this device and this start.

    Args:
        name: of the recipe.
        pictures: that are known.
        device: to train on.
        init: what the weights start from, as ``--init`` has it.
        tune: what is trained of these weights; None: what the recipe chooses.
        backbone: in place of the recipe's, or that of the start.

    Raises:
        ValueError: if there is no such recipe, or it has to know the pictures.
    """
    recipe = find_recipe(name)
    facts = pictures.facts() if isinstance(pictures, Pictures) else pictures
    if facts is None and recipe.reads_data:
        raise ValueError(f"recipe {name!r} chooses by the pictures: give some")
    config = replace(recipe.build(facts, device, init, tune), device=device)
    config = with_start(config, init, tune or config.tune, backbone)
    if facts is not None and recipe.reads_data:
        config = with_small_input(config, facts)
    return config if facts is None else with_channels(config, facts.channels)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of this name; ``_`` stands for ``-``.

    Raises:
        ValueError: if there is none, with the nearest name.
    """
    name = name.replace("_", "-")
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]


def with_channels(config: TrainConfig, channels: int) -> TrainConfig:
    """Return ``config`` for pictures of ``channels`` channels; mean and std are spread alike."""
    data, views = replace(config.data, channels=channels), config.views
    if len(views.mean) != channels:
        views = replace(views, mean=_spread(views.mean, channels), std=_spread(views.std, channels))
    shown = config.input
    if shown is not None and len(shown.mean) != channels:
        shown = replace(
            shown,
            input_size=(channels, *shown.input_size[1:]),
            mean=_spread(shown.mean, channels),
            std=_spread(shown.std, channels),
        )
    return replace(config, data=data, views=views, input=shown)


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return the mean of the three for each channel, for other channels are no colours."""
    return (sum(values) / len(values),) * channels


def _recipes_of(module: ModuleType) -> Iterator[Recipe]:
    """Yield a recipe for each public function of a file, in its order."""
    for name, function in vars(module).items():
        is_own = inspect.isfunction(function) and function.__module__ == module.__name__
        if is_own and not name.startswith("_"):
            yield _fixed(function)


def _fixed(function: Callable[[], TrainConfig]) -> Recipe:
    """Return a recipe that does not look at the pictures."""
    return Recipe(
        name=function.__name__.replace("_", "-"),
        description=inspect.getdoc(function) or "",
        build=lambda facts, device, init, tune: function(),  # noqa: ARG005
    )


def _auto(facts: DataFacts | None, device: str, init: str, tune: str | None) -> TrainConfig:
    assert facts is not None, "make_config has checked this"
    return auto(facts, device, init, tune)


RECIPES: dict[str, Recipe] = {
    "auto": Recipe(
        name="auto", description=inspect.getdoc(auto) or "", build=_auto, reads_data=True
    ),
    **{
        recipe.name: recipe
        for module in (demo, cifar10_cpu, small_gpu, imagenet_swav, imagenet_others)
        for recipe in _recipes_of(module)
    },
}
"""Every recipe, by the name that ``--recipe`` takes."""
