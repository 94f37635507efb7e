"""The command line: words become a config, and the config goes to a command.

``swav train`` parses twice. The first pass finds the recipe (or the file, or the run to continue)
and the method. Every value of that config then is an option of the second pass, of its own type
and with its own default: an option changes one value, and a field of another method is unknown.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from cyclopts import App, CycloptsError, Group, Parameter

import swav
from swav import yaml_core
from swav.config import UsageError, leaves

if TYPE_CHECKING:
    from swav.config import Leaf
    from swav.recipes.options import Start

FAILURE, USAGE, STOPPED, INTERRUPTED = 1, 2, 75, 130

Json = Annotated[bool, Parameter(name="--json", negative="")]
AllowFactory = Annotated[tuple[str, ...], Parameter(name="--allow-factory", negative="")]
Words = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]


def _app(name: str, **settings: Any) -> App:
    """Return an app that raises its errors and lets Ctrl-C through."""
    return App(
        name=name,
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        help_format="plaintext",
        **settings,
    )


app = _app(
    "swav",
    version=swav.__version__,
    help="Pre-train a backbone on unlabelled pictures: embeddings, clusters, and the evidence.",
)


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process's) and return its exit code."""
    try:
        code = app(list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except CycloptsError as error:
        error.verbose = False
        return _fail(str(error), USAGE)
    except UsageError as error:
        return _fail(str(error), USAGE)
    except ValueError as error:
        return _fail(str(error), FAILURE)
    except OSError as error:
        place = "" if error.filename is None else f": {error.filename}"
        return _fail(f"{error.strerror or error}{place}", FAILURE)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error} (SWAV_TRACEBACK=1 shows where)", FAILURE)
    return code or 0


def _fail(message: str, code: int) -> int:
    if os.environ.get("SWAV_TRACEBACK") == "1":
        traceback.print_exc()
    print(f"swav: {' '.join(message.split())}", file=sys.stderr)
    return code


@app.command(sort_key=0)
def demo(*, out: Path | None = None, seed: int = 0) -> int:
    """Train on the built-in pictures on a CPU, within minutes; print where the report is.

    Args:
        out: Run folder; by default a new one under runs/.
        seed: Of the network, the order of the pictures and the augmentation.
    """
    from swav.commands.demo import demo as run

    return _to_the_end(lambda: run(out=out, seed=seed))


@app.command(sort_key=1, help_flags=[], version_flags=[])
def train(*words: Words) -> int:
    """Train on DATA, then export, embed, cluster, evaluate (if labelled) and report."""
    code: int = _train_app(_first_pass(words))(list(words)) or 0
    return code


@app.command(sort_key=2, help_flags=[], version_flags=[])
def evaluate(*words: Words) -> None:
    """Measure trained backbones on pictures; print a table and write eval/NAME.json."""
    _evaluate_app()(list(words))


@app.command(sort_key=3)
def embed(run: Path, data: str, /, *, to: Path, allow_factory: AllowFactory = ()) -> None:
    """Write the embedding of every picture, in a stable order.

    Args:
        run: Run folder.
        data: Pictures.
        to: File to write: .npz, .parquet or .csv.
        allow_factory: Run this package.module:function if the run names it as its backbone.
    """
    from swav.commands.embed import embed as run_embed

    run_embed(run, data, to=to, allow_factory=allow_factory)


@app.command(sort_key=4)
def cluster(
    run: Path,
    data: str | None = None,
    /,
    *,
    to: Path | None = None,
    allow_factory: AllowFactory = (),
) -> None:
    """Write the cluster of every picture, and its probability, to a CSV file.

    Args:
        run: Run folder.
        data: Pictures; by default those of the training.
        to: File to write; by default clusters.csv in the run folder.
        allow_factory: Run this package.module:function if the run names it as its backbone.
    """
    from swav.commands.cluster import cluster as run_cluster

    run_cluster(run, data, to=to, allow_factory=allow_factory)


@app.command(sort_key=5, name="list")
def list_(
    what: Literal["methods", "backbones", "recipes", "tasks"], /, *, as_json: Json = False
) -> None:
    """Name the methods, backbones, recipes or evaluation tasks there are.

    Args:
        what: Kind of thing.
        as_json: Print a list of {"name", "summary"} as JSON.
    """
    from swav.commands.list_ import list_ as run_list

    run_list(what, as_json=as_json)


@app.command(sort_key=6)
def bench(
    what: Literal["input"],
    data: str,
    /,
    *,
    crops: str = "2x224,6x96",
    images: int = 200,
    in_memory: bool = False,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine makes views, beside Pillow and torchvision in the same run.

    Args:
        what: What to measure.
        data: Pictures, as for `swav train`.
        crops: Counts and sizes of the views.
        images: Number of pictures to measure on.
        in_memory: Decode them first, as training does with a set that fits into memory.
        as_json: Print the report as JSON.
    """
    del what
    from swav.commands.bench import bench_input

    bench_input(data, crops=crops, images=images, in_memory=in_memory, as_json=as_json)


@app.command(name="--install-completion", sort_key=9)
def install_completion(*, shell: Literal["bash", "zsh", "fish"] | None = None) -> None:
    """Complete verbs and options with the Tab key, in this shell or another.

    Args:
        shell: By default the one that runs this command.
    """
    from swav.recipes.options import Start

    whole = _app("swav")
    whole.update(app)
    for name, verb in (("train", _train_app(Start())), ("evaluate", _evaluate_app())):
        del whole[name]
        whole.command(verb, name=name)
    print(f"installed {whole.install_completion(shell=shell)}; open a new shell to use it")


def _to_the_end(run: Callable[[], Path]) -> int:
    """Train, print where the report (or the folder) of the run is, and return the exit code."""
    from swav import distributed
    from swav.training.run import StoppedBySignal

    try:
        folder = run()
    except StoppedBySignal as error:
        return _fail(str(error), STOPPED)
    if distributed.rank() == 0:
        report = folder / "report.html"
        print(report if report.exists() else folder)
    return 0


# The options of `swav train`


def _first_pass(words: Sequence[str]) -> "Start":
    """Return what decides which further options there are."""
    from swav.recipes.options import Start

    first = _app("swav train", help_flags=[], version_flags=[])

    @first.default
    def names(
        *,
        recipe: str | None = None,
        config: Path | None = None,
        method: str | None = None,
        out: Path | None = None,
        resume: bool = False,
    ) -> None: ...

    _, bound, *_ = first.parse_known_args(list(words))
    return Start(**bound.arguments)


# The options of `swav evaluate`


def _evaluate_app() -> App:
    """Return the app of ``swav evaluate``, whose options are also those of every task."""
    from swav.evals.selection import TASKS

    found = {
        _variable(f"{name}.{leaf.path}"): replace(leaf, path=f"{name}.{leaf.path}")
        for name, task in TASKS.items()
        for leaf in leaves(task())
    }

    def run(*words: str, **given: Any) -> None:
        _evaluate(words, dict(_values(found, given)), given)

    models = Parameter(
        help="Run folders, or other models (timm name or folder, state dict, random, pixels), "
        "then DATA; by default the pictures of the training.",
    )
    words = inspect.Parameter(
        "words", inspect.Parameter.VAR_POSITIONAL, annotation=Annotated[str, models]
    )
    parameters = [
        words,
        *(
            _parameter(name, Annotated[kind, Parameter(name=option, help=text, negative="")], value)
            for name, (option, kind, value, text) in EVALUATE_OPTIONS.items()
        ),
        *(_leaf_parameter(name, leaf, show_default=True) for name, leaf in found.items()),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    second = _app(
        "swav evaluate",
        version_flags=[],
        help=evaluate.__doc__,
        usage="Usage: swav evaluate MODEL... [DATA] [OPTIONS]",
    )
    second.default(run)
    return second


EVALUATE_OPTIONS: dict[str, tuple[str, Any, Any, str]] = {
    "tasks": (
        "--tasks",
        str | None,
        None,
        "Separated by commas (see swav list tasks); by default what the labels allow of knn, "
        "linear, clusters, part_retrieval.",
    ),
    "split": ("--split", str | None, None, "Part to score, of DATA with parts (test or val)."),
    "fit_on": ("--fit-on", str | None, None, "Pictures to fit on, with --score-on."),
    "score_on": ("--score-on", str | None, None, "Pictures to score, with --fit-on."),
    "out": ("--out", Path | None, None, "Keeps results of models that are no run folders."),
    "channels": ("--channels", int, 3, "Of the pictures, for models that are no run folders."),
    "input_size": ("--input-size", int | None, None, "Side of the pictures these are shown."),
    "crop_pct": ("--crop-pct", float | None, None, "Share of each side shown, by every task."),
    "device": ("--device", str, "cpu", "cpu, cuda, mps, or one device such as cuda:1."),
    "allow_factory": (
        "--allow-factory",
        tuple[str, ...],
        (),
        "Run this package.module:function if a run names it as its backbone.",
    ),
    "as_json": ("--json", bool, False, "Print the list of results as JSON."),
}
"""Options of `swav evaluate` that belong to no task: flag, type, default, help."""


def _evaluate(words: Sequence[str], values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    from swav.commands.evaluate import evaluate
    from swav.evals.selection import configured
    from swav.training.open_model import is_model

    last_is_data = len(words) > 1 and not is_model(words[-1])
    rest = {name: given[name] for name in EVALUATE_OPTIONS if name in given and name != "tasks"}
    evaluate(
        words[:-1] if last_is_data else words,
        words[-1] if last_is_data else None,
        tasks=configured(given.get("tasks"), values),
        **rest,
    )


RUN, SHORT, REST = (
    Group(name, sort_key=place)
    for place, name in enumerate(("Run", "Short for several options", "Training"))
)
RUN_OPTIONS: dict[str, tuple[Any, Any, Group, str]] = {
    "recipe": (
        str | None,
        None,
        RUN,
        "Settings to start from; by default auto (see swav list recipes).",
    ),
    "config": (Path | None, None, RUN, "The same from a file, such as a run's config.yaml."),
    "out": (Path | None, None, RUN, "Run folder; by default a new one under runs/."),
    "resume": (bool, False, RUN, "Continue the interrupted run in --out."),
    "init_from": (Path | None, None, RUN, "Start from the weights of another run."),
    "dry_run": (bool, False, RUN, "Print the plan, with time and memory, and stop."),
    "allow_factory": (
        tuple[str, ...],
        (),
        RUN,
        "Run this package.module:function if a config or run names it as its backbone.",
    ),
    "method": (str | None, None, SHORT, "Another method with its defaults (swav list methods)."),
    "backbone": (str | None, None, SHORT, "A timm model without arguments, or module:factory."),
    "crops": (str | None, None, SHORT, "Counts and sizes of the views, such as 2x224,6x96."),
}
"""Options of `swav train` that are not values of the config: type, default, group, help."""

ALIASES = {"data.channels": "--channels", "data.split": "--split"}
DATA_PATH = "data.data"


def _train_app(start: "Start") -> App:
    """Return the app of the second pass, whose options are the values of the config."""
    found = {_variable(leaf.path): leaf for leaf in leaves(start.read()) if leaf.path != DATA_PATH}

    def run(data: str | None = None, /, **given: Any) -> int:
        values = {} if data is None else {DATA_PATH: data}
        return _train(start, {**values, **dict(_values(found, given))}, given)

    pictures = Parameter(help="Pictures: a folder, list, archive, array, or a built-in set.")
    parameters = [
        _parameter("data", Annotated[str | None, pictures], None, positional=True),
        *(_run_parameter(name) for name in RUN_OPTIONS),
        # what `auto` chooses for typical pictures would mislead as a default
        *(_leaf_parameter(name, leaf, not start.needs_pictures) for name, leaf in found.items()),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    second = _app("swav train", version_flags=[], help=train.__doc__)
    second.default(run)
    return second


def _train(start: "Start", values: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    from swav.recipes.options import complete

    config = complete(start, values, backbone=given.get("backbone"), crops=given.get("crops"))

    from swav.training.run import train as run_train

    typed = (given.get("backbone"), values.get("backbone.name"))
    run = partial(
        run_train,
        config.data.data,
        recipe=start.label,
        out=start.out,
        config=config,
        allow_factory=(*given.get("allow_factory", ()), *filter(None, typed)),
    )
    if given.get("dry_run"):
        run(dry_run=True)
        return 0
    return _to_the_end(partial(run, resume=start.resume, init_from=given.get("init_from")))


def _variable(path: str) -> str:
    return path.replace(".", "__")


def _parameter(name: str, kind: Any, default: Any, *, positional: bool = False) -> Any:
    place = inspect.Parameter.POSITIONAL_ONLY if positional else inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, place, default=default, annotation=kind)


def _run_parameter(name: str) -> Any:
    kind, default, group, text = RUN_OPTIONS[name]
    parameter = Parameter(name=_option(name), group=group, help=text, negative="")
    return _parameter(name, Annotated[kind, parameter], default)


def _leaf_parameter(name: str, leaf: "Leaf", show_default: bool) -> Any:
    section = leaf.path.rpartition(".")[0]
    names = (ALIASES[leaf.path],) if leaf.path in ALIASES else ()
    free_form = get_origin(leaf.type) is dict
    many = get_origin(leaf.type) is tuple and get_args(leaf.type)[-1] is Ellipsis
    parameter = Parameter(
        name=(_option(leaf.path), *names),
        group=Group(section, sort_key=len(RUN_OPTIONS)) if section else REST,
        help=leaf.description,
        negative_iterable=(),
        consume_multiple=many,
        show_default=None if show_default else False,
    )
    kind = dict[str, str] if free_form else leaf.type
    return _parameter(name, Annotated[kind, parameter], leaf.value)


def _option(path: str) -> str:
    return "--" + path.replace("_", "-")


def _values(found: Mapping[str, "Leaf"], given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield path and value of every option that was given."""
    for name, value in given.items():
        if name not in found:
            continue
        if isinstance(value, dict):  # free form: one key each, its value read as in a file
            for key, text in value.items():
                yield f"{found[name].path}.{key}", yaml_core.read(text)
        else:
            yield found[name].path, value
