"""What may be tuned: read, written back, and refused where there is nothing to keep."""

from pathlib import Path

import pytest
from tiny import tiny_config

from swav import config
from swav.recipes.train_config import read_train_config
from swav.recipes.tune import Tune


@pytest.mark.parametrize("text", ["all", "last:1", "last:12", "head"])
def test_a_config_keeps_what_was_said(text: str, tmp_path: Path) -> None:
    made = tiny_config(tune=text, init="lite0")
    assert str(made.tuning) == text
    config.dump(made, tmp_path / "config.yaml")
    assert read_train_config(tmp_path / "config.yaml") == made


def test_stages_are_counted() -> None:
    assert Tune.parse("last:12") == Tune("last", 12)
    assert Tune.parse("last:1").title == "the last stage of the network"


@pytest.mark.parametrize("text", ["", "last", "last:0", "last:-1", "last: 1", "last:x", "ALL"])
def test_anything_else_is_refused_with_what_is_valid(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown --tune .* Valid: all, last:N .*, head"):
        tiny_config(tune=text, init="lite0")


@pytest.mark.parametrize("text", ["last:1", "head"])
def test_random_weights_are_not_worth_keeping(text: str) -> None:
    with pytest.raises(ValueError, match=f"--tune {text} .* --init"):
        tiny_config(tune=text)
