"""The CPU family: one recipe for each method, all with the budget of ``cifar10-cpu``."""

from dataclasses import replace

import pytest

from swav.recipes import RECIPES, make_config
from swav.recipes.options import METHODS

FAMILY = [name for name in RECIPES if name.endswith("-cifar10-cpu")]


def test_there_is_one_for_every_method() -> None:
    methods = [make_config(name).method.name for name in FAMILY]
    assert sorted([*methods, "swav"]) == sorted(METHODS)


@pytest.mark.parametrize("name", FAMILY)
def test_budget_is_that_of_swav(name: str) -> None:
    swav, recipe = make_config("cifar10-cpu"), make_config(name)
    assert recipe.method.name == name.partition("-")[0]
    assert (recipe.optim == swav.optim) is not (recipe.method.name == "byol")  # small steps
    # tiles and patches need other views
    views = recipe.views if recipe.method.pretext is None else swav.views
    assert replace(recipe, method=swav.method, optim=swav.optim, views=views) == swav
