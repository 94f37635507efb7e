"""A config survives the trip through plain values and YAML, and nothing else gets in."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from ruamel.yaml import YAML

from swav import config


@dataclass(frozen=True, kw_only=True)
class Sharp:
    """One of two methods."""

    name: ClassVar[str] = "sharp"
    epsilon: float = 0.05
    """How sharp.

    A second paragraph that no help shows.
    """
    heads: tuple[int, ...] = (3000,)


@dataclass(frozen=True, kw_only=True)
class Sharper(Sharp):
    """One with a field more."""

    steps: int = 1
    """How often."""


@dataclass(frozen=True, kw_only=True)
class Blunt:
    """The other."""

    name: ClassVar[str] = "blunt"
    margin: int | Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part with a rule of its own."""

    size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size {self.size} must be positive")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Every kind of field that the project's configs have."""

    method: Sharp | Blunt
    crops: tuple[Crop, ...]
    extras: dict[str, Any] = field(default_factory=dict)
    decay: float | None = None
    sync: Literal["off", "on"] | int = "off"
    quiet: bool = False
    title: str = ""


RUN = Run(
    method=Sharp(epsilon=1e-6),
    crops=(Crop(size=(32, 32)), Crop(size=(20, 24), scale=(0.05, 0.14))),
    extras={"channels": [32, 64], "stem": {"type": "deep"}, "free": None},
    decay=1e-6,
    title="1e-6",
)
TRICKY = [
    "on",
    "off",
    "no",
    "1e-6",
    "1.5",
    "12",
    "null",
    "~",
    "",
    "2020-01-01",
    "12:30",
    "0o17",
    "1_000",
    "=",
    "y",
    "True",
    "resnet18.a1_in1k",
    "ümläut: #",
    "a\nb",
]


def edited(**values: Any) -> dict[str, Any]:
    return {**config.to_dict(RUN), **values}


def test_plain_values_are_the_fields_with_the_class_named_where_there_is_a_choice() -> None:
    assert config.to_dict(RUN) == {
        "method": {"name": "sharp", "epsilon": 1e-6, "heads": [3000]},
        "crops": [
            {"size": [32, 32], "scale": [0.5, 1.0]},
            {"size": [20, 24], "scale": [0.05, 0.14]},
        ],
        "extras": {"channels": [32, 64], "stem": {"type": "deep"}, "free": None},
        "decay": 1e-6,
        "sync": "off",
        "quiet": False,
        "title": "1e-6",
    }


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        replace(RUN, method=Blunt(), sync=8, decay=None, quiet=True),
        replace(RUN, method=Blunt(margin=3), crops=(), extras={}),
        *(replace(RUN, title=title, extras={title: title}) for title in TRICKY),
    ],
)
def test_the_trip_through_a_file_changes_nothing(run: Run, tmp_path: Path) -> None:
    config.dump(run, tmp_path / "config.yaml")
    read = config.load(Run, tmp_path / "config.yaml")
    assert read == run
    assert repr(read) == repr(run)  # 1 is not 1.0, and True is not 1


@pytest.mark.parametrize("title", TRICKY)
def test_other_yaml_readers_see_the_same_words(title: str, tmp_path: Path) -> None:
    config.dump(replace(RUN, title=title), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    for version in ("1.1", "1.2"):
        reader = YAML(typ="safe", pure=True)
        assert reader.load(f"%YAML {version}\n---\n{text}")["title"] == title


def test_a_number_or_word_may_be_written_as_a_person_writes_it(tmp_path: Path) -> None:
    text = "method: {name: sharp, epsilon: 5e-2, heads: [10]}\ncrops: []\nextras: {}\n"
    (tmp_path / "config.yaml").write_text(text + "decay: 1\nsync: off\nquiet: true\ntitle: no\n")
    read = config.load(Run, tmp_path / "config.yaml")
    expected = Run(
        method=Sharp(epsilon=0.05, heads=(10,)), crops=(), decay=1.0, quiet=True, title="no"
    )
    assert repr(read) == repr(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (edited(titel="x"), r"unknown key 'titel'. Did you mean 'title'\? Valid: method, crops, "),
        ({**edited(), "method": {"name": "sharp", "epsilon": 1.0}}, "method: missing heads"),
        (edited(method={"name": "blunt", "epsilon": 1.0}), "method: unknown key 'epsilon'"),
        (edited(method={"name": "shrap"}), "method: .*'shrap'. Did you mean 'sharp'"),
        (edited(method={"epsilon": 1.0}), "method: unknown name None.*sharp, blunt"),
        (edited(crops=[{"size": [1, 2, 3], "scale": [0.1, 1]}]), "crops.0.size: .* 2 values"),
        (edited(crops=[{"size": [0, 1], "scale": [0.1, 1]}]), r"crops.0: size \(0, 1\) must be"),
        (edited(crops={"size": 1}), "crops: .* is not of type tuple"),
        (edited(decay="much"), r"decay: 'much' is not of type float \| None"),
        (edited(sync="of"), "sync: 'of' is not of type"),
        (edited(sync=True), "sync: True is not of type"),
        (edited(quiet=1), "quiet: 1 is not of type bool"),
        (edited(title=None), "title: None is not of type str"),
        (edited(extras=[1]), "extras: .* is not of type dict"),
        ([], "config: a list is not of type Run"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.from_dict(Run, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", 'duplicate key "a".*line 2'),
        ("a: [\n", "line 2"),
        ("", "config: a NoneType is not of type"),
        ("a: \x00", "not valid YAML: unacceptable character"),
        ("a: &a [1, 1]\nb: [*a, *a]\n", "a config has no aliases: line 2"),
        ("a:\n" + 40 * "[", "a config has at most 32 levels: line 2"),
        ("a: " + 3000 * "{a: ", "a config has at most 32 levels: line 1"),
    ],
)
def test_a_bad_file_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"mine.yaml: .*{message}"):
        config.load(Run, tmp_path / "mine.yaml")


def test_a_small_file_of_a_large_value_is_refused_at_once() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
    start = time.perf_counter()
    for text in (bomb, 100_000 * "[", 100_000 * "{a: ", 100_000 * "- "):
        with pytest.raises(ValueError, match=r"line [12]"):
            config.read_yaml(text)
    assert time.perf_counter() - start < 2


def test_a_file_of_another_kind_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("\n".join(["to whom it may concern"] * 100))
    with pytest.raises(ValueError, match="is not of type Run") as raised:
        config.load(Run, tmp_path / "letter.txt")
    assert "concern" not in str(raised.value)


def test_a_file_cannot_make_objects(tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text("a: !!python/object/apply:os.system ['touch canary']\n")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        config.load(Run, tmp_path / "bomb.yaml")


def test_one_value_changes_one_field() -> None:
    expected = replace(RUN, crops=(RUN.crops[0], Crop(size=(20, 24), scale=(0.1, 0.2))))
    changed = config.with_values(RUN, {"crops.1.scale": (0.1, 0.2)})
    assert changed == expected
    assert config.differences(RUN, changed) == {"crops.1.scale": ([0.05, 0.14], [0.1, 0.2])}
    assert config.with_values(RUN, {"extras.stem.type": "flat"}).extras == {
        **RUN.extras,
        "stem": {"type": "flat"},
    }
    assert RUN.extras["stem"] == {"type": "deep"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("crops.2.size", "crops.2.size: unknown key '2'. Valid: 0, 1"),
        ("crops.0.siez", "crops.0: unknown key 'siez'. Did you mean 'size'"),
        ("metod.epsilon", "metod.epsilon: unknown key 'metod'. Did you mean 'method'"),
        ("method.margin", "method: unknown key 'margin'"),
    ],
)
def test_an_unknown_path_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.with_values(RUN, {path: (1, 2)})


def test_differences_name_every_changed_value() -> None:
    other = replace(RUN, method=Blunt(), quiet=True, crops=RUN.crops[:1])
    assert config.differences(RUN, other) == {
        "method.name": ("sharp", "blunt"),
        "method.epsilon": (1e-6, None),
        "method.heads": ([3000], None),
        "crops.1.size": ([20, 24], None),
        "crops.1.scale": ([0.05, 0.14], None),
        "quiet": (False, True),
        "method.margin": (None, "auto"),
    }
    assert config.differences(RUN, RUN) == {}


def test_a_file_has_a_value_a_line_and_short_lists_on_one(tmp_path: Path) -> None:
    config.dump(RUN, tmp_path / "run.yaml")
    lines = (tmp_path / "run.yaml").read_text().splitlines()
    assert lines[0] == "method:"
    assert "- size: [32, 32]" in lines
    assert not any(line != line.rstrip() or "{" in line for line in lines)
