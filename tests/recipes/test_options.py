"""An option changes what it names, for every recipe, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swav import config
from swav.config import UsageError
from swav.engine import TrainingFacts
from swav.nn.backbones import BackboneConfig
from swav.recipes import TrainConfig, make_config
from swav.recipes import options as training_options
from swav.recipes.options import METHODS, Start, with_narrow_head

DIGITS = {"data.data": "digits"}


def complete(start: Start, changed: Callable[[TrainConfig], TrainConfig]) -> TrainConfig:
    """Return the config alone."""
    return training_options.complete(start, changed)[0]


def options(**values: Any) -> Callable[[TrainConfig], TrainConfig]:
    """Return what puts DATA and values in their places, with __ for the dots of a path."""
    given = {"data.data": "digits"}
    given |= {name.replace("__", "."): value for name, value in values.items()}
    return partial(config.with_values, values=given)


def test_options_come_on_top_of_the_recipe() -> None:
    made = complete(Start(recipe="swav-r50-200ep"), options(epochs=7, optim__momentum=0.8))
    recipe = make_config("swav-r50-200ep")
    assert config.differences(recipe, made) == {
        "data.data": ("", "digits"),
        "epochs": (200, 7),
        "optim.momentum": (0.9, 0.8),
    }


def test_auto_sees_the_pictures_and_the_options_about_them() -> None:
    made = complete(Start(), options(device="cpu", data__channels=1))
    facts = replace(made.data, data="digits").build().facts()
    assert facts.channels == 1
    assert replace(made, data=replace(made.data, data="")) == make_config("auto", facts, "cpu")


def test_a_backbone_by_name_has_no_arguments_but_those_given() -> None:
    start = Start(recipe="demo", backbone="resnet50")
    made = complete(start, options())
    assert made.backbone == BackboneConfig(name="resnet50")
    made = complete(start, options(backbone__args__stem_type="deep"))
    assert made.backbone == BackboneConfig(name="resnet50", args={"stem_type": "deep"})


def test_crops_keep_what_they_do_not_name() -> None:
    recipe = make_config("demo")
    made = complete(Start(recipe="demo", crops="3x48x40,5x24"), options())
    first, second = recipe.views.groups
    assert made.views.groups == (
        replace(first, count=3, size=(48, 40)),
        replace(second, count=5, size=(24, 24)),
    )


def test_channels_bring_as_many_means_unless_given() -> None:
    made = complete(Start(recipe="demo"), options(data__channels=1))
    assert len(made.views.mean) == len(made.views.std) == 1
    assert complete(Start(recipe="demo", channels=1), options()) == made
    given = options(views__mean=(0.3,), views__std=(0.2,))
    assert complete(Start(recipe="demo", channels=1), given).views.mean == (0.3,)


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    written = replace(make_config("cifar100"), epochs=13)
    config.dump(written, tmp_path / "mine.yaml")
    start = Start(config=tmp_path / "mine.yaml")
    assert complete(start, options()) == config.with_values(written, DIGITS)
    assert start.label == str(tmp_path / "mine.yaml")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    written = config.with_values(make_config("demo"), {**DIGITS, "epochs": 13})
    config.dump(written, tmp_path / "config.yaml")
    (tmp_path / "run.json").write_text(json.dumps({"recipe": "demo"}))
    return tmp_path


def test_a_run_to_continue_brings_its_own_settings(run_folder: Path) -> None:
    start = Start(out=run_folder, resume=True)
    made = complete(start, partial(config.with_values, values={"log_every": 3}))
    assert (made.epochs, made.data.data, made.log_every) == (13, "digits", 3)
    assert start.label == "demo"
    assert (
        complete(Start(out=run_folder, resume=True, recipe="demo"), lambda made: made).epochs == 13
    )


def test_a_run_is_not_continued_by_another_recipe(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="started with recipe demo, not cifar10"):
        complete(Start(out=run_folder, resume=True, recipe="cifar10"), options())


def test_a_run_that_never_began_starts_from_its_recipe(tmp_path: Path) -> None:
    start = Start(out=tmp_path, resume=True, recipe="cifar10")
    assert complete(start, options()) == config.with_values(make_config("cifar10"), DIGITS)


def test_the_method_of_the_recipe_is_kept_with_its_settings() -> None:
    assert (
        complete(Start(recipe="demo", method="swav"), options()).method
        == make_config("demo").method
    )


@pytest.mark.parametrize("name", METHODS)
def test_another_method_keeps_data_network_and_budget(name: str) -> None:
    """And its defaults suit small data too: two hundred pictures in batches of the recipe."""
    recipe = make_config("demo")
    made = complete(Start(recipe="demo", method=name), options())
    usual = with_narrow_head(replace(recipe, method=METHODS[name]()), recipe.method)
    assert made.method == (recipe if name == "swav" else usual).method
    assert replace(made, method=recipe.method, data=recipe.data) == replace(
        recipe, data=replace(recipe.data, data="clothes")
    )
    facts = TrainingFacts(feature_dim=1, num_images=200, global_batch=made.optim.batch_size)
    made.method.check(facts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "swav-r50-20ep"}, "unknown recipe 'swav-r50-20ep'. Did you mean 'swav-r50-200"),
        ({"method": "swap"}, "unknown method 'swap'. Did you mean 'swav'"),
        ({"recipe": "demo", "config": Path("mine.yaml")}, "leave one out"),
        ({"resume": True}, "name it with --out"),
    ],
)
def test_a_start_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Start(**settings)


def test_no_pictures_is_an_error_before_anything_else() -> None:
    with pytest.raises(UsageError, match="no pictures"):
        complete(Start(), lambda made: made)


def test_a_field_of_another_method_is_unknown() -> None:
    with pytest.raises(ValueError, match="method: unknown key 'memory_momentum'"):
        config.with_values(make_config("demo"), {"method.memory_momentum": 0.5})
