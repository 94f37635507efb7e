"""Words on a command line arrive as settings, and mistakes as one line and an exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import swav
from swav import cli, config
from swav.config import UsageError
from swav.recipes import RECIPES, TrainConfig, make_config
from swav.recipes.options import METHODS, TYPICAL, Start
from swav.training import run as train_command
from swav.training.run import StoppedBySignal


class Recorder:
    """Stands in for the training and remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = ""
        self.settings: dict[str, Any] = {}

    def __call__(self, data: str, **settings: Any) -> Path:
        self.data, self.settings = data, settings
        return self.folder

    @property
    def config(self) -> TrainConfig:
        """The config of the training."""
        found = self.settings["config"]
        assert isinstance(found, TrainConfig)
        return found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    recorder = Recorder(tmp_path)
    monkeypatch.setattr(train_command, "train", recorder)
    return recorder


def changes(recipe: str, made: TrainConfig) -> dict[str, Any]:
    differences = config.differences(make_config(recipe, TYPICAL), made)
    return {path: new for path, (_, new) in differences.items() if path != "data.data"}


WORDS: dict[str, tuple[tuple[str, ...], Any]] = {
    "epochs": (("7",), 7),
    "seed": (("5",), 5),
    "device": (("cpu",), "cpu"),
    "precision": (("16-mixed",), "16-mixed"),
    "sync_batchnorm": ((), True),
    "compile": (("off",), "off"),
    "workers": (("2",), 2),
    "data.split": (("val",), "val"),
    "data.max_bad_fraction": (("0.5",), 0.5),
    "views.mean": (("0.1", "0.2", "0.3"), [0.1, 0.2, 0.3]),
    "views.groups.0.count": (("3",), 3),
    "views.groups.0.size": (("40", "48"), [40, 48]),
    "views.groups.0.scale": (("0.25", "0.75"), [0.25, 0.75]),
    "views.groups.0.augment.hue": (("0.05",), 0.05),
    "views.groups.0.augment.blur_radius": (("1", "1.5"), [1.0, 1.5]),
    "backbone.name": (("resnet26",), "resnet26"),
    "method.num_prototypes": (("30", "40"), [30, 40]),
    "method.epsilon": (("2e-2",), 0.02),
    "method.codes": (("hard",), "hard"),
    "method.queue_length": (("512",), 512),
    "method.ema_momentum": (("0.99",), 0.99),
    "optim.optimizer": (("sgd",), "sgd"),
    "optim.batch_size": (("64",), 64),
    "optim.learning_rate": (("0.125",), 0.125),
    "optim.clip_norm": (("1",), 1.0),
}
"""The words of an option, and what must stand in the config; one for each kind of value."""


def option(path: str) -> str:
    return "--" + path.replace("_", "-")


@pytest.mark.parametrize("path", WORDS)
def test_one_option_changes_one_field(path: str, trained: Recorder) -> None:
    of_swav = [name for name in list(RECIPES)[1:] if make_config(name).method.name == "swav"]
    recipe = of_swav[list(WORDS).index(path) % len(of_swav)]
    words, value = WORDS[path]
    assert cli.main(["train", "digits", "--recipe", recipe, option(path), *words]) == 0
    before = config.to_dict(make_config(recipe))
    for part in path.split("."):
        before = before[int(part)] if isinstance(before, list) else before[part]
    assert changes(recipe, trained.config) == ({} if before == value else {path: value})
    assert trained.data == trained.config.data.data == "digits"
    assert trained.settings["recipe"] == recipe


def fields_of(value: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, type and value of every option there must be."""
    kinds = get_type_hints(type(value))
    for field in fields(value):
        path, member = f"{prefix}{field.name}", vars(value)[field.name]
        if is_dataclass(member):
            yield from fields_of(member, f"{path}.")
        elif isinstance(member, tuple) and member and is_dataclass(member[0]):
            for place, each in enumerate(member):
                yield from fields_of(each, f"{path}.{place}.")
        elif path not in (
            "data.data",
            "backbone.args",
            "init",
            "tune",  # needs --init
            "input",  # of a start too
            "views.time_window",  # needs views.group
        ):
            yield path, kinds[field.name], member


def another(kind: Any, value: Any) -> Any:
    """Return a valid value that an option does not have."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    match value:
        case _ if choices:
            return next(choice for choice in choices if choice != value)
        case bool():
            return not value
        case int():
            return 2 * value + 2
        case float():
            return value / 2 or 0.25
        case ():
            return (8,)
        case tuple():
            return tuple(one / 2 if isinstance(one, float) else 8 for one in value)
        case "auto":
            return 4096 if kind is not str else "cpu"
        case None:
            words = [get_args(member)[0] for member in get_args(kind) if get_args(member)]
            numbers = 8 if int in get_args(kind) else 0.5
            return words[0] if words else "train" if str in get_args(kind) else numbers
    return f"{value}x"


def words_for(path: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        parent, dot, name = path.rpartition(".")
        return [option(path if value else f"{parent}{dot}no_{name}")]
    return [option(path), *map(str, value if isinstance(value, tuple) else [value])]


def check_one_changes(before: TrainConfig, path: str, kind: Any) -> None:
    """Give one option, and see that it alone changes."""
    value = next(value for name, _, value in fields_of(before) if name == path)
    made = another(kind, value)
    options = cli._train_options(before)
    changed = cli._read(options, words_for(path, made))
    assert list(config.differences(before, changed)) == [path]


@pytest.mark.parametrize("method", METHODS)
def test_each_option_of_a_method_changes_its_field(method: str) -> None:
    made = Start(recipe="demo", method=method).read()
    for path, kind, _ in fields_of(made):
        if path.startswith("method.") or method == "swav":
            check_one_changes(made, path, kind)


@pytest.mark.parametrize("recipe", RECIPES)
def test_options_change_their_fields_in_every_recipe_with_every_method(recipe: str) -> None:
    """Each pair of recipe and method has one option, another one for the next pair."""
    for number, method in enumerate(METHODS):
        start = Start(recipe=recipe, method=method)
        if make_config(recipe, TYPICAL, "cpu").views.num_views < METHODS[method].min_views:
            with pytest.raises(UsageError, match="--crops"):
                start.read()
            start = replace(start, crops="2x224")
        made = start.read()
        found = list(fields_of(made))
        path, kind, _ = found[(list(RECIPES).index(recipe) * 5 + number * 7) % len(found)]
        check_one_changes(made, path, kind)


@pytest.mark.parametrize("recipe", list(RECIPES)[1:])
def test_options_of_several_kinds_change_their_fields_in_every_recipe(
    recipe: str, trained: Recorder
) -> None:
    words = ["--recipe", recipe, "--epochs", "77", "--views.groups.0.augment.hue", "0.125"]
    assert cli.main(["train", *words, "digits", "--optim.weight-decay=0.3"]) == 0
    assert changes(recipe, trained.config) == {
        "epochs": 77,
        "views.groups.0.augment.hue": 0.125,
        "optim.weight_decay": 0.3,
    }


def test_without_options_the_recipe_is_as_it_is(trained: Recorder) -> None:
    assert cli.main(["train", "digits", "--recipe", "cifar10"]) == 0
    assert changes("cifar10", trained.config) == {}


def test_what_is_tuned_of_a_start_is_an_option(trained: Recorder, tmp_path: Path) -> None:
    words = ["--recipe", "demo", "--init", str(tmp_path), "--tune", "last:2"]
    assert cli.main(["train", "digits", *words, "--optim.layer-decay", "0.9"]) == 0
    assert (trained.config.tune, trained.config.optim.layer_decay) == ("last:2", 0.9)


def test_options_for_several_fields(trained: Recorder, tmp_path: Path) -> None:
    words = ["--backbone", "resnet26", "--crops", "2x48,3x24", "--channels", "1"]
    weights = ["--init", str(tmp_path), "--allow-missing"]
    assert cli.main(["train", "digits", "--recipe", "demo", *words, *weights]) == 0
    made = trained.config
    assert (made.backbone.name, made.backbone.args) == ("resnet26", {})
    assert made.views.description == "2x48,3x24"
    assert (made.data.channels, len(made.views.mean)) == (1, 1)
    assert made.init == str(tmp_path)
    assert trained.settings["allow_missing"]
    assert not trained.settings["resume"]


@pytest.mark.parametrize("first", [True, False])
def test_an_augmentation_of_all_groups_gives_way_to_that_of_one(
    first: bool, trained: Recorder
) -> None:
    everywhere, alone = ["--views.augment.jitter", "0"], ["--views.groups.0.augment.jitter=0.4"]
    words = [*everywhere, *alone] if first else [*alone, *everywhere]
    assert cli.main(["train", "digits", "--recipe", "demo", *words]) == 0
    assert changes("demo", trained.config) == {
        "views.groups.0.augment.jitter": 0.4,
        "views.groups.1.augment.jitter": 0.0,
    }


def test_an_augmentation_of_all_groups_counts_where_it_is_the_default_of_the_first(
    trained: Recorder, tmp_path: Path
) -> None:
    made = make_config("demo")
    jittered = config.with_values(made, {"views.groups.1.augment.jitter": 0.125})
    config.dump(jittered, tmp_path / "mine.yaml")
    jitter = str(made.views.groups[0].augment.jitter)
    words = ["--config", str(tmp_path / "mine.yaml"), "--views.augment.jitter", jitter]
    assert cli.main(["train", "digits", *words, "--views.augment.blur_radius", "0.1", "2"]) == 0
    assert trained.config.views == made.views


@pytest.mark.parametrize("word", ["--tensorboard=true", "--method.head.batchnorm=false"])
def test_a_flag_may_have_its_value_after_an_equals_sign(word: str, trained: Recorder) -> None:
    assert cli.main(["train", "digits", "--recipe", "demo", word]) == 0
    path, _, value = word.removeprefix("--").replace("-", "_").partition("=")
    assert changes("demo", trained.config) == {path: value == "true"}


def test_flags_of_a_run_are_passed_on(trained: Recorder, tmp_path: Path) -> None:
    words = ["--recipe", "demo", "--out", str(tmp_path), "--resume"]
    assert cli.main(["train", "digits", *words]) == 0
    assert trained.settings["resume"]
    assert cli.main(["train", "digits", *words, "--dry-run"]) == 0
    assert trained.settings["dry_run"]


def test_arguments_of_a_backbone_are_read_as_in_a_file(trained: Recorder) -> None:
    words = ["--backbone.args.channels", "[8, 16]", "--backbone.args.stem_type", "deep"]
    words += ["--backbone.args.zero_init_last", "true", "--backbone", "resnet26"]
    assert cli.main(["train", "digits", "--recipe", "demo", *words]) == 0
    expected = {"channels": [8, 16], "stem_type": "deep", "zero_init_last": True}
    assert trained.config.backbone.args == expected


def test_a_config_file_in_place_of_a_recipe(trained: Recorder, tmp_path: Path) -> None:
    config.dump(make_config("stl10"), tmp_path / "mine.yaml")
    path = str(tmp_path / "mine.yaml")
    assert cli.main(["train", "digits", "--config", path, "--seed", "3"]) == 0
    assert changes("stl10", trained.config) == {"seed": 3}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("trian digits", 2, "unknown command 'trian'. Did you mean 'train'?"),
        ("train", 2, "no pictures"),
        ("train digits more", 2, "more"),
        ("train digits --recipe cifar-10", 2, "Did you mean 'cifar10'"),
        ("train digits --method swap", 2, "Did you mean 'swav'"),
        ("train digits --epohcs 3", 2, "Perhaps you meant: --epochs INT"),
        ("train digits --epochs many", 2, "many"),
        ("train digits --precision 64", 2, "16-mixed"),
        ("train digits --epochs 1.5", 2, "'1.5'"),
        ("train digits --method.memory-momentum 0.5", 2, "Unrecognized options: --method.memory-"),
        ("train digits --method.epsilom 0.5", 2, "Perhaps you meant: --method.epsilon FLOAT"),
        ("train digits --data.pipeline pillow", 2, "--data.pipeline is now --views.pipeline"),
        ("train digits --init-from runs/a", 2, "--init-from is now --init (--init RUN)"),
        ("train digits --backbone.pretrained", 2, "is now --init (--init timm)"),
        ("train digits --backbone.no-pretrained", 2, "--backbone.pretrained is now --init"),
        ("train digits --data.time-window=3", 2, "now --views.time-window"),
        ("train digits --recipe demo --backbone.args.channels [8", 2, "not valid YAML"),
        ("train digits --recipe demo --backbone.args.channels", 2, "needs a value"),
        ("train digits --recipe demo --optim.accumulate 3", 2, "swav: optim: batch_size 64"),
        ("train digits --views.augment.jitter 3", 2, "jitter 3.0 is a probability"),
        ("train digits --resume", 2, "--out"),
        ("train digits --recipe demo --epochs 0", 2, "epochs 0"),
        ("train digits --recipe demo --crops 2y3", 2, "COUNTxSIZE"),
        ("train digits --recipe demo --views.groups.0.count 0", 2, "a crop group of 0"),
        ("train nowhere", 1, "nowhere"),
        ("train digits --config nowhere.yaml", 1, "No such file or directory: nowhere.yaml"),
        ("list recipe", 2, "'recipes'"),
        ("import lite0", 2, "name it with --out"),
        ("list", 2, "{methods,backbones,recipes,tasks}"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(
    words: str, code: int, message: str, trained: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("swav: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not trained.settings


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("epochs 0:\n  give more"), 1, "epochs 0: give more"),
        (StoppedBySignal("stopped after step 3"), 75, "stopped after step 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "runs/x"), 1, "No space left on device: runs/x"),
        (RuntimeError("odd"), 1, "RuntimeError: odd (SWAV_TRACEBACK=1 shows where)"),
    ],
)
@pytest.mark.parametrize("traceback", [False, True])
def test_how_a_training_ends_badly(
    error: BaseException,
    code: int,
    message: str,
    traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(data: str, **settings: Any) -> Path:
        raise error

    monkeypatch.setattr(train_command, "train", fail)
    monkeypatch.setenv("SWAV_TRACEBACK", str(int(traceback)))
    assert cli.main(["train", "digits", "--recipe", "demo"]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"swav: {message}"
    assert ("Traceback (most recent call last):" in lines) == traceback


def test_the_path_of_the_report_is_the_result(
    trained: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "digits", "--recipe", "demo"]) == 0
    assert capsys.readouterr().out == f"{trained.folder}\n"
    (trained.folder / "report.html").touch()
    assert cli.main(["train", "digits", "--recipe", "demo"]) == 0
    assert capsys.readouterr().out == f"{trained.folder / 'report.html'}\n"


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("methods", {"swav"}),
        ("recipes", {"auto", "demo", "cifar10-cpu", "swav-r50-800ep"}),
        ("tasks", {"knn", "linear", "clusters"}),
        ("backbones", {"resnet50", "cifar_resnet18", "resnet50w2"}),
    ],
)
def test_lists_what_there_is(what: str, some: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", what, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert all(set(entry) == {"name", "summary"} for entry in entries)
    names = [entry["name"] for entry in entries]
    assert some <= set(names)
    assert cli.main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names


def test_help_of_a_training_shows_the_defaults_of_its_recipe(
    trained: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--recipe", "swav-r50-200ep", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--epochs INT Passes over the data. (default: 200)" in text
    assert "--views.augment.jitter FLOAT Probability of the colour jitter. (default: 0.8)" in text
    assert "--views.groups.1.augment.jitter FLOAT" in text
    assert "defaults shown" not in text
    assert cli.main(["train", "--help"]) == 0  # `auto` has none before it sees the pictures
    assert "The defaults shown are for 10,000 photographs" in capsys.readouterr().out
    assert cli.main(["train", "--method", "moco", "--help"]) == 0
    assert "--method.memory-length" not in text
    assert not trained.settings


def seconds_of_processor(script: str, *words: str) -> float:
    """Return the least of three runs of a program, which may print more on stderr."""
    script += (
        "\nimport resource, sys"
        "\nused = resource.getrusage(resource.RUSAGE_SELF)"
        "\nprint('torch' in sys.modules, used.ru_utime + used.ru_stime, file=sys.stderr)\n"
    )
    found = []
    for _ in range(3):
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        torch_imported, seconds = done.stderr.splitlines()[-1].split()
        assert torch_imported == "False"
        found.append(float(seconds))
    return min(found)


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["unknown"]])
def test_help_takes_no_torch_and_little_more_than_the_library(words: list[str]) -> None:
    """Half a second where the bare library takes 0.2; a ratio, as machines differ by far."""
    library = seconds_of_processor("import tyro, ruamel.yaml")
    ours = seconds_of_processor("import sys\nfrom swav.cli import main\nmain(sys.argv[1:])", *words)
    assert ours < 2.5 * library, f"{ours:.2f} s beside {library:.2f} s of the library alone"


def test_as_a_module_it_is_the_same_command() -> None:
    words = [sys.executable, "-m", "swav", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == swav.__version__


def test_a_reader_that_leaves_early_is_no_error_message() -> None:
    script = "from swav import cli; cli._action = lambda words: lambda: print('much'); cli.main([])"
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=True)
    os.close(writing)
    assert done.stderr == b""


def test_completion_knows_the_options_of_a_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: Recorder
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["--install-completion", "--shell", "bash"]) == 0
    text = "".join(path.read_text() for path in tmp_path.rglob("swav"))
    assert "--optim.learning-rate" in text
    assert cli.main(["train", "digits", "--recipe", "demo", "--epochs", "3"]) == 0
    assert changes("demo", trained.config) == {"epochs": 3}


def test_the_package_gives_its_functions_when_asked() -> None:
    assert swav.embed.__module__ == "swav.commands.embed"
    assert set(swav.__all__) <= set(dir(swav))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        swav.trian  # noqa: B018


def test_an_option_that_repeats_leaves_data_alone(trained: Recorder) -> None:
    words = ["--allow-factory", "one:network", "--allow-factory", "two:network", "digits"]
    assert cli.main(["train", "--recipe", "demo", *words]) == 0
    assert trained.config.data.data == "digits"
    assert trained.settings["allow_factory"] == ("one:network", "two:network")
