"""Every recipe is whole, survives its file, and is found by its name."""

import re
from pathlib import Path

import pytest

from swav import config
from swav.config import UnknownNameError
from swav.data.sources.pictures import DataFacts
from swav.data.views.pretext_tasks import JigsawViews
from swav.engine import TrainingFacts
from swav.recipes import RECIPES, TrainConfig, make_config, with_channels
from swav.recipes.options import METHODS, TYPICAL, with_method, with_narrow_head

ALL = list(RECIPES)


def facts(channels: int) -> DataFacts:
    return DataFacts(
        num_images=100, height=32, width=32, channels=channels, num_classes=0, in_memory=True
    )


@pytest.mark.parametrize("name", ALL)
def test_the_trip_through_a_file_changes_nothing(name: str, tmp_path: Path) -> None:
    made = make_config(name, TYPICAL)
    config.dump(made, tmp_path / "config.yaml")
    assert config.load(TrainConfig, tmp_path / "config.yaml") == made


@pytest.mark.parametrize("name", ALL)
def test_says_where_it_is_from_and_what_it_needs(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.summary.endswith(".")
    assert len(recipe.summary) < 100
    for word in ("Source:", "Hardware:", "Result:"):
        assert word in recipe.description
    if name.partition("-")[0] not in ("auto", "demo"):
        assert re.search(r"[0-9] (h|min)\b|time not published|nor the time", recipe.description)


@pytest.mark.parametrize("name", ALL)
def test_the_method_can_be_built_for_its_batch(name: str) -> None:
    made = make_config(name, TYPICAL)
    batch = made.optim.batch_size
    facts = TrainingFacts(feature_dim=1, num_images=50_000, global_batch=batch)
    assert made.method.check(facts) is not None
    assert made.optim.accumulate == 1 or not made.method.needs_whole_batch


@pytest.mark.parametrize("name", ALL)
def test_a_pretext_task_can_cut_its_views(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # 2,000 permutations take seconds
    monkeypatch.setattr(JigsawViews, "_permutations", lambda _: None)
    recipe = make_config(name, TYPICAL)
    if recipe.method.pretext is not None:
        recipe.method.pretext.check(recipe.views)


def test_a_recipe_is_found_by_either_spelling() -> None:
    assert make_config("cifar10_cpu") == make_config("cifar10-cpu")


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'imagenette'"):
        make_config("imagenete")


def test_auto_wants_to_know_the_pictures() -> None:
    with pytest.raises(ValueError, match="by the pictures"):
        make_config("auto")


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_as_many_means_as_channels(channels: int) -> None:
    made = make_config("demo", facts(channels))
    assert made.data.channels == channels
    assert len(made.views.mean) == len(made.views.std) == channels


def test_three_channels_keep_their_own_means() -> None:
    made = make_config("cifar10")
    assert with_channels(made, 3) == made
    grey = with_channels(made, 1).views
    assert grey.mean == pytest.approx((sum(made.views.mean) / 3,))


@pytest.mark.parametrize("method", ["barlow", "vicreg", "byol", "simclr", "moco"])
def test_heads_are_no_wider_than_a_small_recipe_has_them(method: str) -> None:
    small, published = (make_config(name, TYPICAL) for name in ("auto", "swav-r50-200ep-bs256"))
    config = with_narrow_head(with_method(small, method), small.method)
    head, usual = config.method.head, METHODS[method]().head
    assert head.hidden_dim == small.method.head.hidden_dim == 512
    assert head.embed_dim == min(usual.embed_dim, 512)
    wide = with_narrow_head(with_method(published, method), published.method)
    assert wide.method.head == usual
