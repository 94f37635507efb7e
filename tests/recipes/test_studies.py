"""The studies of the paper: every value is one that ``swav train`` takes."""

from dataclasses import replace

import pytest

from swav.config import UsageError
from swav.recipes import make_config
from swav.recipes.options import TYPICAL
from swav.recipes.studies import STUDIES, study_grid
from swav.recipes.train_config import TrainConfig

AUTO = make_config("auto", TYPICAL, "cpu")


@pytest.fixture(params=["auto", "cifar10-cpu", "swav-r50-200ep"])
def recipe(request: pytest.FixtureRequest) -> TrainConfig:
    return make_config(request.param, TYPICAL, "cpu")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_each_value_once(name: str, recipe: TrainConfig) -> None:
    grid = study_grid(name.replace("-", "_"), recipe)
    assert max(map(len, grid.values())) >= 2
    for values in grid.values():
        assert len(set(values)) == len(values)


def test_the_recipe_itself_is_among_the_values() -> None:
    method = AUTO.method
    assert str(method.num_prototypes[0]) in study_grid("prototypes", AUTO)["method.num-prototypes"]
    assert str(method.iterations) in study_grid("sinkhorn-iterations", AUTO)["method.iterations"]
    assert method.codes in study_grid("codes", AUTO)["method.codes"]
    assert str(AUTO.epochs) in study_grid("epochs", AUTO)["epochs"]
    assert AUTO.views.description in study_grid("small-crops", AUTO)["crops"]


def test_one_epoch_is_not_varied_below_one() -> None:
    assert study_grid("epochs", replace(AUTO, epochs=1))["epochs"] == ("1", "2")
    assert study_grid("epochs", replace(AUTO, epochs=5))["epochs"] == ("1", "2", "5", "10")


def test_a_study_of_swav_needs_swav() -> None:
    simclr = make_config("simclr-cifar10-cpu")
    with pytest.raises(UsageError, match="of swav, and the recipe trains simclr"):
        study_grid("epsilon", simclr)
    assert study_grid("epochs", simclr)
    one_size = replace(AUTO, views=AUTO.views.with_crops("2x32"))
    with pytest.raises(UsageError, match="needs some: this recipe has 2x32"):
        study_grid("small-crops", one_size)
    with pytest.raises(UsageError, match=r"unknown study 'queu'\. Did you mean 'queue'"):
        study_grid("queu", AUTO)
