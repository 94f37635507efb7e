"""``swav ablate``: a grid of trainings over settings and seeds, as a table and a figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction

from swav.config import UsageError
from swav.data.sources.open import Data
from swav.recipes.options import Start
from swav.recipes.studies import Grid, study_grid
from swav.recipes.train_config import TrainConfig
from swav.report.ablation import Summary, print_ablation
from swav.training import ablation
from swav.training.ablation import Variant
from swav.training.run import train
from swav.training.trained_run import TrainedRun

NOT_VARIED = ("seed", "out", "resume", "dry-run", "config", "evaluate-at-end")
"""Options of ``swav train`` that an ablation has of its own."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Train a grid over settings and seeds. DATA, --out and all else are as in swav train."""

    grid: Annotated[tuple[str, ...], UseAppendAction] = ()
    """KEY=VALUE;VALUE;...: an option of swav train without its dashes, and its values, such as
    'method.epsilon=0.02;0.05' or 'crops=2x32;2x32,4x20'. May be repeated: every combination is
    trained."""
    study: str | None = None
    """A study of the paper: prototypes, sinkhorn-iterations, codes, fixed-prototypes, epsilon,
    queue, small-crops or epochs (docs/ablations.md has their values)."""
    seeds: str = "0,1"
    """Of each combination, separated by commas."""
    at_equal: str = "epochs"
    """epochs, or seconds:N: each run has as many epochs as take N seconds of training, by the
    speed of its first 30 steps."""

    @property
    def seed_numbers(self) -> list[int]:
        """The seeds."""
        words = [word.strip() for word in self.seeds.split(",")]
        if not all(map(str.isdecimal, words)):
            raise UsageError(f"--seeds {self.seeds}: give whole numbers, such as 0,1,2")
        return list(map(int, words))

    @property
    def own_keys(self) -> list[str]:
        """What ``--grid`` varies."""
        return list(map(_key, self.grid))

    def values(self, config: TrainConfig) -> Grid:
        """Return the values of each option that is varied around the settings of all runs.

        Raises:
            ValueError: for what is no option with values, or one that cannot be varied.
        """
        found = {} if self.study is None else dict(study_grid(self.study, config))
        for text in self.grid:
            equals, values = text.partition("=")[1:]
            key = _key(text)
            if not key or not equals or not all(part.strip() for part in values.split(";")):
                raise UsageError(f"--grid {text}: write 'KEY=VALUE;VALUE', such as 'epochs=5;10'")
            if key in NOT_VARIED or key in found:
                why = "is given twice" if key in found else "cannot be varied (--seeds has seeds)"
                raise UsageError(f"--grid {text}: {key} {why}")
            found[key] = tuple(part.strip() for part in values.split(";"))
        if not found:
            raise UsageError("nothing is varied: give --grid 'KEY=VALUE;VALUE' or --study NAME")
        return found


def _key(text: str) -> str:
    """Return the option of ``KEY=VALUE;VALUE``."""
    return text.partition("=")[0].strip().removeprefix("--").replace("_", "-")


def combinations(grid: Grid) -> list[dict[str, str]]:
    """Return every combination of the values."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def ablate(
    data: Data,
    variants: Mapping[str, TrainConfig],
    *,
    out: str | PathLike[str],
    seeds: Sequence[int] = (0, 1),
    at_equal: str = "epochs",
) -> Summary:
    """Train every variant with every seed, and print means and their spread.

    Runs that are finished are not made again, an interrupted one goes on.

    Args:
        data: pictures, as for ``swav.train``.
        variants: complete settings, by names of your own.
        out: folder for runs, ``rows.csv``, ``table.md`` and ``figure.png``.
        seeds: of each variant.
        at_equal: ``epochs``, or ``seconds:N`` for as many epochs as take so long.

    Raises:
        ValueError: before the first run, for a variant that cannot be trained.
    """
    made = [
        Variant(settings={"variant": name}, config=config, data=data, train=train)
        for name, config in variants.items()
    ]
    return run(made, seeds=seeds, out=Path(out), at_equal=at_equal)


def run(variants: Sequence[Variant], *, seeds: Sequence[int], out: Path, at_equal: str) -> Summary:
    """Train what is missing of the variants, print the table and say where all of it is."""
    seconds = _seconds(at_equal)
    summary = ablation.ablate(variants, seeds=seeds, out=out, seconds=seconds)
    print_ablation(summary, title=str(out))
    print("\n".join(str(out / name) for name in (ablation.ROWS, ablation.TABLE, ablation.FIGURE)))
    return summary


def planned(
    ablation: Ablation,
    common: Sequence[str],
    training: Callable[[Sequence[str]], tuple[Start, partial[TrainedRun]]],
    is_given: Callable[[Sequence[str], str], bool],
) -> Callable[[], object]:
    """Return the ablation that words of the command line ask for, or the list of its runs.

    Args:
        ablation: what is varied.
        common: the other words, those of ``swav train``, for all runs.
        training: reads such words.
        is_given: whether an option is among words.

    Raises:
        ValueError: for a setting or value that ``swav train`` would not take.
    """
    for own, other in (("--seed", "--seeds"), ("--resume", "not needed: it goes on by itself")):
        if is_given(common, own):
            raise UsageError(f"{own} is of swav train; here it is {other}")
    start, base = training(common)
    if start.out is None:
        raise UsageError("the runs need a folder: name it with --out")
    grid = ablation.values(base.keywords["config"])
    for key in ablation.own_keys:  # those of a study are around what is given
        if is_given(common, f"--{key}"):
            raise UsageError(f"--{key} is both varied and given for all runs: leave one out")
    variants, seeds = [], ablation.seed_numbers
    for settings in combinations(grid):
        words = [word for key, value in settings.items() for word in _option(key, value)]
        try:
            _, made = training([*common, *words])
        except UsageError as error:
            raise UsageError(f"{' '.join(words)} (; separates values): {error}") from error
        keywords = dict(made.keywords)
        config, train_as_told = keywords.pop("config"), partial(made.func, **keywords)
        variants.append(
            Variant(settings=settings, config=config, data=made.args[0], train=train_as_told)
        )
    if start.dry_run:
        return partial(list_runs, variants, seeds)
    return partial(run, variants, seeds=seeds, out=start.out, at_equal=ablation.at_equal)


def _option(key: str, value: str) -> list[str]:
    """Return a setting as words of ``swav train``; a value may be of several."""
    return [f"--{key}={value}"] if value in ("true", "false") else [f"--{key}", *value.split()]


def list_runs(variants: Sequence[Variant], seeds: Sequence[int]) -> None:
    """Print what would be trained."""
    for seed, variant in product(seeds, variants):
        print(f"{variant.name},seed={seed}: {variant.config.epochs} epochs")
    print(f"{len(variants) * len(seeds)} runs")


def _seconds(at_equal: str) -> float | None:
    kind, _, number = at_equal.partition(":")
    if at_equal == "epochs":
        return None
    try:
        seconds = float(number)
    except ValueError:
        seconds = 0.0
    if kind != "seconds" or not 0 < seconds < 1e9:
        raise UsageError(f"--at-equal {at_equal}: it is epochs, or seconds:N such as seconds:60")
    return seconds
