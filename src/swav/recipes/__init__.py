"""Recipes: functions that return complete training configs, by the names of the command line."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

from swav.config import UnknownNameError
from swav.data.sources.pictures import DataFacts, Pictures
from swav.recipes import cifar10_cpu, imagenet_others, imagenet_swav, pretext, small_gpu
from swav.recipes.auto import auto, explain
from swav.recipes.demo import demo
from swav.recipes.train_config import TrainConfig

__all__ = ["RECIPES", "Recipe", "TrainConfig", "explain", "make_config", "with_channels"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe as the command line shows it."""

    name: str
    description: str
    """What it is in a line, then source, hardware and result."""
    build: Callable[[DataFacts | None, str], TrainConfig]
    """From what is known of the pictures (None: nothing) and a device."""
    reads_data: bool = False
    """Whether ``build`` needs to know the pictures."""

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.splitlines()[0]


def make_config(
    name: str, pictures: Pictures | DataFacts | None = None, device: str = "auto"
) -> TrainConfig:
    """Return a recipe's config for these pictures and this device.

    Raises:
        ValueError: if there is no such recipe, or it has to know the pictures.
    """
    recipe = find_recipe(name)
    facts = pictures.facts() if isinstance(pictures, Pictures) else pictures
    if facts is None and recipe.reads_data:
        raise ValueError(f"recipe {name!r} chooses by the pictures: give some")
    config = replace(recipe.build(facts, device), device=device)
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
        mean = sum(views.mean) / len(views.mean)
        std = sum(views.std) / len(views.std)
        views = replace(views, mean=(mean,) * channels, std=(std,) * channels)
    return replace(config, data=data, views=views)


def _fixed(function: Callable[[], TrainConfig]) -> Recipe:
    """Return a recipe that does not look at the pictures."""
    return Recipe(
        name=_name(function),
        description=inspect.getdoc(function) or "",
        build=lambda facts, device: function(),  # noqa: ARG005
    )


def _name(function: Callable[..., TrainConfig]) -> str:
    return function.__name__.replace("_", "-")


def _auto(facts: DataFacts | None, device: str) -> TrainConfig:
    assert facts is not None, "make_config has checked this"
    return auto(facts, device)


_FIXED = (
    demo,
    small_gpu.cifar10_cpu,
    small_gpu.cifar10,
    small_gpu.cifar100,
    small_gpu.stl10,
    small_gpu.imagenette,
    imagenet_swav.swav_r50_100ep,
    imagenet_swav.swav_r50_200ep,
    imagenet_swav.swav_r50_400ep,
    imagenet_swav.swav_r50_800ep,
    imagenet_swav.swav_r50_400ep_2x224,
    imagenet_swav.swav_r50_200ep_bs256,
    imagenet_swav.swav_r50_400ep_bs256,
    imagenet_swav.swav_r50_400ep_8gpu,
    imagenet_swav.swav_r50w2_400ep,
    imagenet_swav.swav_r50w4_400ep,
    imagenet_swav.swav_r50w5_400ep,
    cifar10_cpu.deepcluster_cifar10_cpu,
    cifar10_cpu.sela_cifar10_cpu,
    cifar10_cpu.simclr_cifar10_cpu,
    cifar10_cpu.moco_cifar10_cpu,
    cifar10_cpu.byol_cifar10_cpu,
    cifar10_cpu.instdisc_cifar10_cpu,
    cifar10_cpu.barlow_cifar10_cpu,
    cifar10_cpu.vicreg_cifar10_cpu,
    imagenet_others.deepcluster_r50_400ep,
    imagenet_others.deepcluster_r50_400ep_2x224,
    imagenet_others.deepcluster_r50_800ep,
    imagenet_others.sela_r50_400ep,
    imagenet_others.simclr_r50_100ep,
    imagenet_others.moco_r50_200ep,
    imagenet_others.instdisc_r50_200ep,
    imagenet_others.byol_r50_1000ep,
    imagenet_others.barlow_r50_1000ep,
    imagenet_others.vicreg_r50_100ep,
    pretext.rotation_r50_105ep,
    pretext.rotation_cifar10_cpu,
    pretext.jigsaw_r50_105ep,
    pretext.jigsaw_cifar10_cpu,
    pretext.relative_r50_70ep,
    pretext.relative_cifar10_cpu,
    pretext.pirl_r50_800ep,
    pretext.pirl_cifar10_cpu,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="auto", description=inspect.getdoc(auto) or "", build=_auto, reads_data=True),
        *(_fixed(function) for function in _FIXED),
    )
}
"""Every recipe, by the name that ``--recipe`` takes."""
