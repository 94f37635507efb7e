"""Dataclasses to plain values, YAML and back, strictly: every key known, every key there."""

import contextlib
import dataclasses
import difflib
import re
import reprlib
import types
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.representer import SafeRepresenter

T = TypeVar("T")

MOST_NAMES = 40
"""An error message lists the valid names up to this many."""
DEEPEST = 32
"""Levels of a YAML file; ours have five."""


class UsageError(ValueError):
    """What was asked for contradicts itself, lacks something or does not exist."""


class UnknownNameError(UsageError):
    """A name that is not among the valid ones; the message has the nearest that is."""

    def __init__(self, kind: str, name: object, valid: Collection[str]) -> None:
        near = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        names = f" Valid: {', '.join(valid)}." if 0 < len(valid) <= MOST_NAMES else ""
        super().__init__(f"unknown {kind} {name!r}.{hint}{names}")


def check_ranges(config: Any, **intervals: str) -> None:
    """Refuse numbers of a config that lie outside of their intervals: ``momentum="[0, 1)"``.

    A round bracket leaves its end out, so ``[0, inf)`` is any finite number from 0 up; NaN lies
    nowhere. A field of whole numbers takes no fractions. Of a tuple every number counts; words such
    as auto, and None, pass.

    Raises:
        UsageError: naming the value, what is valid, and the default if there is one.
    """
    cls: Any = type(config)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for name, interval in intervals.items():
        value, default = vars(config)[name], defaults[name]
        whole = not _takes(_hints(cls)[name], float)
        numbers = value if isinstance(value, tuple) else (value,)
        if all(_lies_in(number, interval, whole) for number in numbers):
            continue
        kind = "whole numbers" if whole else "numbers"
        hint = "" if default in (dataclasses.MISSING, None, ()) else f"; the default is {default}"
        raise UsageError(f"{name} {value} is not among the {kind} in {interval}{hint}")


def _takes(expected: Any, kind: type) -> bool:
    return expected is kind or any(_takes(member, kind) for member in get_args(expected))


def _lies_in(number: Any, interval: str, whole: bool) -> bool:
    if not isinstance(number, int | float):
        return True
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number > low if interval.startswith("(") else number >= low
    below = number < high if interval.endswith(")") else number <= high
    return above and below and not (whole and isinstance(number, float))


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain values: dicts, lists, strings, numbers, booleans and None.

    A class with ``name: ClassVar[str]`` (one of several methods, say) writes its name first.
    """
    tag = _tag(type(config))
    values = {field.name: _plain(vars(config)[field.name]) for field in dataclasses.fields(config)}
    return values if tag is None else {"name": tag, **values}


def from_dict(cls: type[T], values: Any) -> T:
    """Return the dataclass that ``to_dict`` turned into ``values``, which may come from anyone.

    Raises:
        ValueError: for an unknown key, a missing key, or a value of another type.
    """
    parsed: T = _parse(cls, values, "")
    return parsed


def dump(config: Any, path: Path) -> None:
    """Write a dataclass to a YAML file."""
    write_yaml(to_dict(config), path)


def load(cls: type[T], path: Path) -> T:
    """Read a dataclass from a YAML file that ``dump`` or a person wrote.

    Raises:
        ValueError: naming the file, and the key or the line.
    """
    try:
        return from_dict(cls, read_yaml(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_yaml(text: str) -> Any:
    """Return the values in YAML 1.2 ``text``: ``off`` is a word and ``1e-6`` a number.

    Raises:
        ValueError: naming the line that is not YAML, or that a config has no use for.
    """
    try:
        _check_events(text)
        return _yaml().load(text)
    except MarkedYAMLError as error:  # without the line itself, which may be of any file
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ValueError(f"not valid YAML: {error.problem}{line}") from error
    except YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from error


def write_yaml(values: Mapping[str, Any], path: Path) -> None:
    """Write plain values to a YAML file."""
    with path.open("w", encoding="utf-8") as file:
        _yaml().dump(values, file)


def _check_events(text: str) -> None:
    """Refuse what makes a small file a large value, before any value is made."""
    depth = 0
    for event in _yaml().parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or depth > DEEPEST:
            what = "no aliases" if isinstance(event, AliasEvent) else f"at most {DEEPEST} levels"
            raise ValueError(f"a config has {what}: line {event.start_mark.line + 1}")


class _Representer(SafeRepresenter):
    """Short lists on one line; words and numbers that YAML 1.1 and 1.2 read alike."""

    def represent_float(self, data: float) -> Any:
        node = super().represent_float(data)
        node.value = re.sub(r"^(-?\d+)e", r"\1.0e", node.value)  # 1e-06 is a word in YAML 1.1
        return node

    def represent_list(self, data: list[Any]) -> Any:
        on_one_line = not any(isinstance(value, dict | list) for value in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=on_one_line)

    def represent_str(self, data: str) -> Any:
        is_word = re.fullmatch(r"[A-Za-z][\w/.-]*", data, re.ASCII) and data.lower() not in _TAKEN
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if is_word else '"')


# what YAML 1.1, which PyYAML still reads, takes for booleans and nothing
_TAKEN = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_Representer.add_representer(float, _Representer.represent_float)
_Representer.add_representer(list, _Representer.represent_list)
_Representer.add_representer(str, _Representer.represent_str)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.width = 4096  # a value stays on the line of its key
    # keys stay in the order of the fields, which is that of the help and the docs
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def with_values(config: T, values: Mapping[str, Any]) -> T:
    """Return ``config`` with the values at some paths replaced; the rest is untouched.

    A path may also name a new key of a free-form field, such as ``backbone.args.stem_type``.

    Raises:
        ValueError: if a path is unknown or a value does not fit.
    """
    plain = to_dict(config)
    for path, value in values.items():
        *parents, last = path.split(".")
        node: Any = plain
        for part in parents:
            node = _child(node, part, path)
        if isinstance(node, list):
            _child(node, last, path)
            node[int(last)] = _plain(value)
        else:
            node[last] = _plain(value)
    return from_dict(type(config), plain)


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Return the paths at which two configs differ, with both values (None where one has none)."""
    first, second = flatten(to_dict(one)), flatten(to_dict(other))
    pairs = {path: (first.get(path), second.get(path)) for path in {**first, **second}}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _tag(cls: Any) -> str | None:
    """Return a class's ``name: ClassVar[str]``, which tells it from others of its union."""
    if get_origin(_hints(cls).get("name")) is not ClassVar:
        return None
    return str(vars(cls)["name"])


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    return value


def _parse(expected: Any, value: Any, path: str) -> Any:
    """Return ``value`` as the type ``expected``; ``path`` is where it stands."""
    origin = get_origin(expected)
    if expected is Any:
        return value
    if origin in (Union, types.UnionType):
        return _parse_union(get_args(expected), value, path)
    if origin is Literal:
        choices = get_args(expected)
        if (type(value), value) not in [(type(choice), choice) for choice in choices]:
            raise ValueError(
                f"{path}: {UnknownNameError('value', value, [str(c) for c in choices])}"
            )
        return value
    if dataclasses.is_dataclass(expected):
        return _parse_dataclass(expected, value, path)
    if origin in (tuple, list):
        return _parse_sequence(expected, value, path)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong_type(expected, value, path)
        member = get_args(expected)[1]
        return {str(key): _parse(member, item, f"{path}.{key}") for key, item in value.items()}
    return _parse_scalar(expected, value, path)


def _parse_scalar(expected: Any, value: Any, path: str) -> Any:
    if expected is float and type(value) in (int, float):
        return float(value)
    if expected is types.NoneType and value is None:
        return None
    if type(value) is not expected:  # isinstance takes True for a whole number
        raise _wrong_type(expected, value, path)
    return value


def _parse_union(members: tuple[Any, ...], value: Any, path: str) -> Any:
    classes = {_tag(member): member for member in members if dataclasses.is_dataclass(member)}
    if classes and isinstance(value, Mapping):
        if list(classes) == [None]:  # one class or none
            return _parse_dataclass(classes[None], value, path)
        if value.get("name") not in classes:
            names = [str(name) for name in classes]
            raise ValueError(f"{path}: {UnknownNameError('name', value.get('name'), names)}")
        return _parse_dataclass(classes[value["name"]], value, path)
    for member in members:
        with contextlib.suppress(ValueError):  # in their order: int | float keeps 1 whole
            return _parse(member, value, path)
    raise _wrong_type(members, value, path)


def _parse_dataclass(cls: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong_type(cls, value, path)
    values, tag, inside = dict(value), _tag(cls), f"{path}: " if path else ""
    if tag is not None and values.pop("name", None) != tag:
        raise ValueError(f"{inside}{UnknownNameError('name', value.get('name'), [tag])}")
    names = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise ValueError(f"{inside}{UnknownNameError('key', key, names)}")
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"{inside}missing {', '.join(missing)}: a complete config has every key")
    hints = _hints(cls)
    prefix = f"{path}." if path else ""
    parsed = {name: _parse(hints[name], values[name], f"{prefix}{name}") for name in names}
    try:
        return cls(**parsed)
    except ValueError as error:
        raise ValueError(f"{inside}{error}") from error


def _parse_sequence(expected: Any, value: Any, path: str) -> Any:
    members = get_args(expected)
    if not isinstance(value, list | tuple):
        raise _wrong_type(expected, value, path)
    if get_origin(expected) is list:
        return [_parse(members[0], item, f"{path}.{index}") for index, item in enumerate(value)]
    if members[-1] is Ellipsis:
        members = members[:1] * len(value)
    if len(members) != len(value):
        raise ValueError(f"{path}: {list(value)} must have {len(members)} values")
    pairs = enumerate(zip(members, value, strict=True))
    return tuple(_parse(member, item, f"{path}.{index}") for index, (member, item) in pairs)


def _wrong_type(expected: Any, value: Any, path: str) -> ValueError:
    members = expected if isinstance(expected, tuple) else (expected,)
    names = [str(member) if get_origin(member) else member.__name__ for member in members]
    names = [name.replace("typing.", "").replace("NoneType", "None") for name in names]
    # of a file that is no config, which may hold secrets, nothing is shown
    shown = reprlib.repr(value) if path else f"a {type(value).__name__}"
    return ValueError(f"{path or 'config'}: {shown} is not of type {' | '.join(names)}")


def _child(node: Any, part: str, path: str) -> Any:
    """Return what stands at one step of a path."""
    valid = [str(index) for index in range(len(node))] if isinstance(node, list) else list(node)
    if part not in valid:
        raise ValueError(f"{path}: {UnknownNameError('key', part, valid)}")
    return node[int(part)] if isinstance(node, list) else node[part]


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Return nested plain values by path, such as ``views.groups.0.count``."""
    if isinstance(value, list) and any(isinstance(member, dict) for member in value):
        value = {str(index): member for index, member in enumerate(value)}
    if not isinstance(value, dict):
        return {path: value}
    prefix = f"{path}." if path else ""
    parts = [flatten(member, f"{prefix}{key}") for key, member in value.items()]
    return {key: member for part in parts for key, member in part.items()}
