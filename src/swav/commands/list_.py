"""What there is to choose from: methods, backbones, recipes and evaluation tasks."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from json import dumps
from typing import Any, Literal, get_args

import timm

from swav.evals import EvalConfig
from swav.evals.presets import PRESETS
from swav.methods import MethodConfig
from swav.recipes import RECIPES

What = Literal["methods", "backbones", "recipes", "tasks"]


@dataclass(frozen=True)
class Entry:
    """One thing to choose, and what it is in a line."""

    name: str
    summary: str


def entries(what: What) -> list[Entry]:
    """Return everything of one kind that this installation has."""
    match what:
        case "methods":
            return list(_of_union(MethodConfig))
        case "tasks":
            presets = (Entry(name, _first_line(of.__doc__)) for name, of in PRESETS.items())
            return [*_of_union(EvalConfig), *presets]
        case "recipes":
            return [Entry(recipe.name, recipe.summary) for recipe in RECIPES.values()]
        case "backbones":
            return [Entry(name, _backbone_summary(name)) for name in timm.list_models()]


def list_(what: What, /, *, json: bool = False) -> None:
    """Print names, with a line about each.

    Args:
        what: kind of thing.
        json: print a list of {"name", "summary"} as JSON.
    """
    found = entries(what)
    if json:
        print(dumps([asdict(entry) for entry in found], indent=2))
        return
    width = max(len(entry.name) for entry in found)
    for entry in found:
        print(f"{entry.name:<{width}}  {entry.summary}".rstrip())


def _of_union(union: Any) -> Iterator[Entry]:
    """Yield the classes of a union of configs (or the only one), by their names."""
    for cls in get_args(union) or (union,):
        yield Entry(cls.name, _first_line(cls.__doc__))


def _backbone_summary(name: str) -> str:
    return _first_line(timm.model_entrypoint(name).__doc__)


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0] if text and text.strip() else ""
