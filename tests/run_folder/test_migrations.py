"""What earlier versions wrote comes up to the present form, and nothing else gets in with it."""

from copy import deepcopy
from typing import Any

import pytest
from tiny import TINY_METHODS, tiny_config

from swav.config import from_dict, to_dict
from swav.methods import MethodConfig
from swav.recipes.train_config import TrainConfig
from swav.run_folder.migrations import (
    SCHEMA,
    head_settings,
    migrate_config,
    migrate_record,
    migrate_result,
    move,
    pretext_batchnorm,
    prior_settings,
    published_start,
    vectors_decay,
    views_settings,
)

FLAT = {"hidden_dim": 16, "head_batchnorm": True, "embed_dim": 8}
TOGETHER = {"hidden_dim": 16, "embed_dim": 8, "batchnorm": True}


def first_schema(config: TrainConfig) -> dict[str, Any]:
    """Return a config as the first schema wrote it; settings that came later are left out."""
    values = to_dict(config)
    for key in ("pipeline", "group", "time_window"):
        values["data"][key] = values["views"].pop(key)
    del values["optim"]["decay_vectors"]
    values["backbone"]["pretrained"] = values.pop("init") == "timm"
    method = values["method"]
    if "head" in method:
        head = method.pop("head")
        method |= {"hidden_dim": head["hidden_dim"], "embed_dim": head["embed_dim"]}
        if method["name"] != "moco":
            method["head_batchnorm"] = head["batchnorm"]
    if "batchnorm" in method:
        method["head_batchnorm"] = method.pop("batchnorm")
    if "prior" in method:
        prior = method.pop("prior")
        method |= {"prior_exponent": prior["exponent"], "prior_shares": prior["weights"]}
        method["prior_strength"] = prior["strength"]
    method.pop("batchnorm_per_view", None)
    return values


@pytest.mark.parametrize("method", TINY_METHODS.values(), ids=lambda method: method.name)
def test_the_first_schema_comes_up_for_every_method(method: MethodConfig) -> None:
    config = tiny_config(method=method)
    expected = to_dict(config)
    if "batchnorm_per_view" in expected["method"]:
        expected["method"]["batchnorm_per_view"] = False  # as it was computed then
    values = first_schema(config)
    before = deepcopy(values)
    migrated = migrate_config(values)
    assert to_dict(from_dict(TrainConfig, migrated)) == expected
    assert values == before, "migrations leave what they are given as it is"
    assert migrate_config(migrated) == migrated


@pytest.mark.parametrize("method", TINY_METHODS.values(), ids=lambda method: method.name)
def test_the_present_form_stays_with_and_without_its_number(method: MethodConfig) -> None:
    values = to_dict(tiny_config(method=method))
    assert migrate_config(values) == values
    assert migrate_config({"schema": SCHEMA, **values}) == values


def test_settings_of_the_views_leave_the_data() -> None:
    values: dict[str, Any] = {"data": {"data": "a", "pipeline": "pillow", "group": None}}
    views_settings(values)
    assert values == {"data": {"data": "a"}, "views": {"pipeline": "pillow", "group": None}}


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("swav", {"head": {**TOGETHER, "num_hidden": 1, "bias": True}}),
        (
            "byol",
            {"head": {**TOGETHER, "num_hidden": 1, "bias": True}, "batchnorm_per_view": False},
        ),
        (
            "barlow",
            {"head": {**TOGETHER, "num_hidden": 2, "bias": False}, "batchnorm_per_view": False},
        ),
    ],
)
def test_settings_of_the_head_stand_together(name: str, later: dict[str, Any]) -> None:
    values = {"method": {"name": name, **FLAT}}
    head_settings(values)
    assert values["method"] == {"name": name, **later}


def test_the_head_of_moco_had_no_batchnorm() -> None:
    values: dict[str, Any] = {"method": {"name": "moco", "hidden_dim": 16, "embed_dim": 8}}
    head_settings(values)
    assert values["method"]["head"] == {
        **TOGETHER,
        "batchnorm": False,
        "num_hidden": 1,
        "bias": True,
    }


def test_tile_networks_name_batchnorm_alone() -> None:
    values: dict[str, Any] = {"method": {"name": "relative", "hidden_dim": 4, **FLAT}}
    head_settings(values)
    pretext_batchnorm(values)
    expected = {"name": "relative", "hidden_dim": 16, "embed_dim": 8, "batchnorm": True}
    assert values["method"] == expected


def test_the_prior_is_one_value() -> None:
    former = {"prior_exponent": 0.3, "prior_shares": [1.0, 2.0], "prior_strength": None}
    values: dict[str, Any] = {"method": {"name": "swav", **former}}
    prior_settings(values)
    later = {"exponent": 0.3, "weights": [1.0, 2.0], "strength": None}
    assert values["method"] == {"name": "swav", "prior": later}


def test_vectors_decayed_before_it_could_be_chosen() -> None:
    values: dict[str, Any] = {"optim": {"weight_decay": 1e-6}}
    vectors_decay(values)
    assert values["optim"] == {"weight_decay": 1e-6, "decay_vectors": True}


@pytest.mark.parametrize(("pretrained", "init"), [(False, "random"), (True, "timm")])
def test_published_weights_were_a_flag_of_the_backbone(pretrained: bool, init: str) -> None:
    values: dict[str, Any] = {"backbone": {"name": "resnet18", "pretrained": pretrained}}
    published_start(values)
    assert values == {"backbone": {"name": "resnet18"}, "init": init}


def test_nothing_is_moved_over_a_value_or_into_none() -> None:
    values: dict[str, Any] = {"data": {"group": "folder"}, "views": {"group": None}}
    move(values, "data.group", "views.group")
    move(values, "data.absent", "views.absent")
    move(values, "data.group", "views.group.deeper")
    assert values == {"data": {"group": "folder"}, "views": {"group": None}}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("method.head_batchnorn", r"method: unknown key 'head_batchnorn'"),
        ("data.pipelin", r"data: unknown key 'pipelin'"),
        ("optim.weight_decai", r"unknown key 'weight_decai'\. Did you mean 'weight_decay'"),
        ("epoch", r"unknown key 'epoch'\. Did you mean 'epochs'"),
    ],
)
def test_an_unknown_key_is_refused_after_migration(path: str, message: str) -> None:
    values = first_schema(tiny_config())
    *parents, key = path.split(".")
    node = values
    for parent in parents:
        node = node[parent]
    node[key] = 1
    with pytest.raises(ValueError, match=message):
        from_dict(TrainConfig, migrate_config(values))


@pytest.mark.parametrize(
    ("part", "key", "missing"),
    [
        ("data", "pipeline", "pipeline"),
        ("method", "embed_dim", "embed_dim"),
        ("method", "prior_exponent", "exponent"),
        ("optim", "momentum", "momentum"),
    ],
)
def test_a_missing_key_is_refused_after_migration(part: str, key: str, missing: str) -> None:
    values = first_schema(tiny_config())
    del values[part][key]
    with pytest.raises(ValueError, match=f"missing {missing}"):
        from_dict(TrainConfig, migrate_config(values))


def test_what_came_later_must_be_in_a_file_of_the_present_schema() -> None:
    values = to_dict(tiny_config())
    del values["optim"]["decay_vectors"]
    assert from_dict(TrainConfig, migrate_config(values)).optim.decay_vectors
    with pytest.raises(ValueError, match="missing decay_vectors"):
        from_dict(TrainConfig, migrate_config({"schema": SCHEMA, **values}))


@pytest.mark.parametrize("values", [None, "text", [1], {"data": 3, "method": [], "optim": None}])
def test_what_is_no_config_is_left_to_be_refused(values: Any) -> None:
    assert migrate_config(values) == values


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, "2", True, None])
def test_another_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match="schema"):
        migrate_config({"schema": schema})
    with pytest.raises(ValueError, match="schema"):
        migrate_record({"schema": schema})


def test_a_record_gets_its_number() -> None:
    assert migrate_record({"seed": 3}) == {"seed": 3, "schema": SCHEMA}


def test_a_result_has_the_present_name_of_its_task() -> None:
    assert migrate_result({"task": "parts", "seeds": [0]}) == {
        "task": "part_retrieval",
        "seeds": [0],
    }
    for other in ({"task": "knn"}, {"task": 3}, {}):
        assert migrate_result(other) == other
