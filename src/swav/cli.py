"""The command line: words become a config, and the config goes to a command.

tyro reads the words. ``swav train`` has it do so twice: first for the words that say where the
config starts (recipe, file or run, method), then for all of them, with the values of that config as
defaults. So an option changes one value, and a field of another method is unknown.
"""

import contextlib
import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import (
    AvoidSubcommands,
    FlagCreatePairsOff,
    HelptextFromCommentsOff,
    UseAppendAction,
    arg,
    configure,
)

import swav
from swav.commands import HELP, MOVED, TYPICAL_DEFAULTS, VERBS
from swav.config import UnknownNameError, UsageError, flatten, read_yaml, to_dict, with_values

if TYPE_CHECKING:
    from swav.recipes.options import Start
    from swav.recipes.train_config import TrainConfig
    from swav.training.trained_run import TrainedRun

FAILURE, USAGE, STOPPED, INTERRUPTED = 1, 2, 75, 130

Action = Callable[[], Any]
"""What the words ask for. It runs when all of them are read: its errors are none of the words."""
Options = Callable[..., Any]
"""A function whose parameters are options, and whose docstring is their help."""
UNNAMED, FOR_ALL = arg(name=""), arg(name="views.augment")
MARKERS = (AvoidSubcommands, HelptextFromCommentsOff)
"""A method has the options of its class; comments in the code are no help."""

PICTURES = {
    "run": str | Path,
    "data": str | None,
    "picture": str | None,
    "among": Annotated[str | None, arg(name="in")],  # a word that Python keeps
}
"""Parameters that take what a program holds in Python; on the command line they are words."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process's) and return its exit code."""
    try:
        code = _action(list(sys.argv[1:] if words is None else words))()
        sys.stdout.flush()
    except SystemExit:
        return 0  # tyro has printed help
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except UsageError as error:
        return _fail(str(error), USAGE)
    except ValueError as error:
        return _fail(str(error), FAILURE)
    except OSError as error:
        place = "" if error.filename is None else f": {error.filename}"
        return _fail(f"{error.strerror or error}{place}", FAILURE)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error} (SWAV_TRACEBACK=1 shows where)", FAILURE)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    if os.environ.get("SWAV_TRACEBACK") == "1":
        traceback.print_exc()
    with contextlib.suppress(OSError):  # of a terminal that was closed
        print(f"swav: {' '.join(message.split())}", file=sys.stderr)
    return code


def _action(words: list[str]) -> Action:
    match words:
        case ["--version"]:
            return partial(print, swav.__version__)
        case ["--help" | "-h"] | []:
            lines = [f"  {verb:<9} {summary}" for verb, summary in VERBS.items()]
            return partial(print, "\n".join(["Usage: swav VERB ...", "", HELP, "", *lines]))
        case ["--install-completion" as option, *rest]:
            kept: Action = _read(_kept(install_completion), rest, prog=f"swav {option}")
            return kept
        case ["train", *rest]:
            return _train(rest)
        case ["ablate", *rest]:
            return _ablate(rest)
        case ["evaluate", *rest]:
            return _evaluate(rest)
        case ["import", *rest]:
            return _import(rest)
        case [verb, *rest] if verb in VERBS:
            action: Action = _read(_options(verb), rest, prog=f"swav {verb}")
            return partial(_to_the_end, action, is_said=True) if verb == "demo" else action
    raise UnknownNameError("command", words[0], VERBS)


def _read(function: Options, words: Sequence[str], **settings: Any) -> Any:
    """Return what a function makes of the words: its parameters are the options.

    Raises:
        UsageError: for words that are not understood, in one line, without tyro's frame around it.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(function, args=[*map(_flag, words)], config=MARKERS, **settings)
    except SystemExit as end:
        if not end.code:
            raise
        _, *lines = said.getvalue().splitlines()
        text = (line.strip("│| ") for line in lines if any(map(str.isalnum, line)))
        raise UsageError(" ".join(text).replace("Error parsing config.", "")) from None
    except ValueError as error:  # of a config that checks its values
        raise UsageError(str(error)) from error


def _flag(word: str) -> str:
    """Return ``--a.b=false`` as ``--a.no-b``, which is how tyro has it; other words as they are."""
    option, _, value = word.partition("=")
    if not option.startswith("--") or value not in ("true", "false"):
        return word
    parent, dot, name = option.removeprefix("--").rpartition(".")
    return option if value == "true" else f"--{parent}{dot}no-{name}"


def _kept(function: Callable[..., Any]) -> Options:
    """Return what has the options of a function, and returns its call instead of making it."""

    # what is off has no option to turn it off; a list must not take the words that follow it
    @configure(FlagCreatePairsOff, UseAppendAction)
    @wraps(function)
    def keep(*values: Any, **named: Any) -> Action:
        return partial(function, *values, **named)

    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=PICTURES.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    keep.__dict__.pop("__wrapped__")  # tyro would read that one instead
    keep.__dict__["__signature__"] = signature.replace(parameters=parameters)
    keep.__annotations__ = {each.name: each.annotation for each in parameters}
    return keep


def _options(verb: str) -> Options:
    """Return what has the options of a verb: its function in ``swav.commands``, but for three."""
    from swav.recipes.options import Start

    match verb:
        case "train":
            return _train_options(Start().read())
        case "ablate":
            from swav.commands.ablate import Ablation

            return Ablation
        case "evaluate":
            return _evaluate_options()
    name = f"{verb}_" if verb in ("list", "import") else verb  # which are words of Python
    return _kept(vars(import_module(f"swav.commands.{name}"))[name])


def _import(words: Sequence[str]) -> Action:
    """Return the import that the words ask for."""
    words, arguments = _without_arguments(words)
    action: Callable[..., Any] = _read(_options("import"), words, prog="swav import")
    given = {path.removeprefix("backbone.args."): value for path, value in arguments.items()}
    return partial(action, backbone_args=given)


def _to_the_end(run: Action, *, is_said: bool = False) -> int:
    """Train, print where the report (or the folder) of the run is, and return the exit code.

    A command that has said it itself is not repeated.
    """
    from swav import distributed
    from swav.training.run import StoppedBySignal

    try:
        folder = run()
    except StoppedBySignal as error:
        return _fail(str(error), STOPPED)
    finally:
        is_first = distributed.rank() == 0
        distributed.leave()
    if is_first and not is_said:
        from swav.run_folder import layout

        report = folder / layout.REPORT
        print(report if report.exists() else folder)
    return 0


def _train(words: Sequence[str]) -> Action:
    """Return the training that the words ask for."""
    start, run = _training(words)
    run = partial(run, out=start.out)
    if start.dry_run:
        return partial(run, dry_run=True)
    return partial(_to_the_end, partial(run, resume=start.resume))


def _training(words: Sequence[str]) -> "tuple[Start, partial[TrainedRun]]":
    """Return what the words say of the run, and the training; it lacks out and resume."""
    from swav.data.views.augment import AugmentConfig
    from swav.recipes.options import Start, complete

    def begin(
        *,
        start: Annotated[Start, UNNAMED, FlagCreatePairsOff, UseAppendAction] = Start(),  # noqa: B008
        augment: Annotated[AugmentConfig, FOR_ALL] = AugmentConfig(),  # noqa: B008
    ) -> tuple[Start, AugmentConfig]:
        return start, augment

    words, arguments = _without_arguments(words)
    for old in MOVED:
        if _is_given(words, old):
            raise UsageError(f"{old} is now {MOVED[old]}")
    # help waits for the second reading, which knows the defaults
    (start, augment), _ = _read(begin, words, return_unknown_args=True, add_help=False)
    for_all = {
        name: value
        for name, value in vars(augment).items()
        if _is_given(words, f"--views.augment.{name}")
    }
    description = f"{VERBS['train']}{TYPICAL_DEFAULTS if start.needs_pictures else ''}"

    def changed(config: "TrainConfig") -> "TrainConfig":
        try:
            config = replace(config, views=config.views.with_augment(**for_all))
            config = with_values(config, arguments)
        except ValueError as error:
            raise UsageError(str(error)) from error
        options = _train_options(config)
        made: TrainConfig = _read(options, words, prog="swav train", description=description)
        return made

    config, data = complete(start, changed)

    from swav.training.run import train as run_train

    allowed = _allowed(start, config, words)
    run = partial(run_train, data, recipe=start.label, config=config, allow_factory=allowed)
    return start, partial(run, allow_missing=start.allow_missing)


def _allowed(start: "Start", config: "TrainConfig", words: Sequence[str]) -> tuple[str, ...]:
    """Return the factories that may run: those allowed, and one typed as the backbone."""
    typed = start.backbone is not None or _is_given(words, "--backbone.name")
    return (*start.allow_factory, *((config.backbone.name,) if typed else ()))


def _train_options(config: "TrainConfig") -> Options:
    """Return what has the options of a training, with the values of ``config`` as defaults."""
    from swav.data.views.augment import AugmentConfig
    from swav.recipes.options import Start
    from swav.recipes.train_config import TrainConfig

    arguments = config.backbone.args
    without = replace(config, backbone=replace(config.backbone, args={}))  # they are read before

    def options(
        data: Annotated[str, arg(metavar="DATA")] = config.data.data,
        /,
        *,
        start: Annotated[Start, UNNAMED, FlagCreatePairsOff, UseAppendAction] = Start(),  # noqa: B008
        augment: Annotated[AugmentConfig, FOR_ALL] = config.views.groups[0].augment,
        config: Annotated[TrainConfig, UNNAMED] = without,
    ) -> TrainConfig:
        """Return the config.

        Args:
            data: Pictures: a folder, list, archive, array, or a built-in set.
            start: What is no value of the config.
            augment: For all groups of views; what is set for one group comes after.
            config: What is.
        """
        del start, augment
        source = replace(config.data, data=data or config.data.data)
        return replace(config, data=source, backbone=replace(config.backbone, args=arguments))

    return options


def _without_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take out ``--backbone.args.NAME VALUE``, of any name; values are read as in a file."""
    rest, arguments, left = [], {}, iter(words)
    for word in left:
        if word.startswith("--backbone.args."):
            path, equals, value = word.removeprefix("--").partition("=")
            try:
                arguments[path.replace("-", "_")] = read_yaml(value if equals else next(left))
            except StopIteration:
                raise UsageError(f"{word} needs a value") from None
            except ValueError as error:
                raise UsageError(f"--{path}: {error}") from error
        else:
            rest.append(word)
    return rest, arguments


def _is_given(words: Sequence[str], option: str) -> bool:
    """Return whether an option, or the one that says no to it, is among the words."""
    parent, dot, name = option.replace("_", "-").rpartition(".")
    given = {word.partition("=")[0].replace("_", "-") for word in words}
    return not given.isdisjoint({f"{parent}{dot}{name}", f"{parent}{dot}no-{name}"})


def _ablate(words: Sequence[str]) -> Action:
    """Return the ablation that the words ask for."""
    from swav.commands.ablate import Ablation, planned

    whole = not {"--help", "-h"}.isdisjoint(words)
    ablation, common = _read(Ablation, words, prog="swav ablate", return_unknown_args=not whole)
    return partial(_to_the_end, planned(ablation, common, _training, _is_given), is_said=True)


def _evaluate(words: Sequence[str]) -> Action:
    """Return the evaluation that the words ask for."""
    from swav.commands.evaluate import evaluate
    from swav.evals.selection import configured
    from swav.training.open_model import is_model

    read = partial(_read, _evaluate_options(), words, prog="swav evaluate")
    read = partial(read, description=VERBS["evaluate"])
    (models, tasks, named, settings), more = read(return_unknown_args=True)
    if any(word.startswith("-") for word in more):
        read()  # says what is wrong
    models = [*models, *more]  # some may follow an option
    # DATA is last and may be left out, so whether the last word is a model decides
    data = models.pop() if len(models) > 1 and not is_model(models[-1]) else None
    values = flatten({name: to_dict(task) for name, task in settings.items()})
    given = {path: value for path, value in values.items() if _is_given(words, f"--{path}")}
    return partial(evaluate, models, data, configured(tasks, given), **named)


def _evaluate_options() -> Options:
    """Return what has the options of an evaluation and those of every task."""
    from swav.commands.evaluate import evaluate
    from swav.evals.selection import TASKS

    @wraps(evaluate)
    def named(*_: Any, **values: Any) -> dict[str, Any]:
        return values

    # without the first three parameters, which are read from the words in another form
    others = arg(name="", constructor=partial(named, (), None, None))
    defaults = {name: task() for name, task in TASKS.items()}

    def options(
        models: Annotated[tuple[str, ...], arg(metavar="MODEL... [DATA]")] = (),
        /,
        *,
        tasks: str | None = None,
        others: Annotated[dict[str, Any], others, FlagCreatePairsOff, UseAppendAction],
        settings: Annotated[dict[str, Any], UNNAMED] = defaults,
    ) -> tuple[tuple[str, ...], str | None, dict[str, Any], dict[str, Any]]:
        """Return models, tasks, the other options, and the settings of every task.

        Args:
            models: Run folders, or other models (timm name or folder, state dict, random, pixels,
                patch-kmeans), then DATA; by default the pictures of the training.
            tasks: Separated by commas (see swav list tasks); by default what the labels allow of
                knn, linear, clusters, part_retrieval.
            others: Of no task.
            settings: Of all tasks there are.
        """
        return models, tasks, others, settings

    return options


def install_completion(*, shell: Literal["bash", "zsh", "fish"] | None = None) -> None:
    """Complete verbs and options with the Tab key, in this shell or another.

    Args:
        shell: By default the one that runs this command.
    """
    from swav.completion import write_completion

    name = shell or Path(os.environ.get("SHELL", "bash")).name
    write_completion(name, {verb: _options(verb) for verb in VERBS}, MARKERS)
