"""``swav compare``: runs side by side, from what their folders hold."""

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path

from swav.config import UsageError
from swav.report.compare_page import Comparison, write_comparison
from swav.report.score_table import print_table, scores
from swav.training.comparing import compared


def compare(
    runs: Sequence[str | Path], /, *, to: str | Path | None = None, json: bool = False
) -> Comparison:
    """Print the scores of runs side by side, and the settings in which they differ.

    Runs that differ by their seed alone are one line, with the deviation between them. Nothing is
    measured anew: `swav evaluate` does that.

    Args:
        runs: run folders, two or more.
        to: ``.html``, for a page that also has the curves over steps, pictures seen and seconds;
            it needs no network.
        json: print all scores and settings as JSON.

    Raises:
        ValueError: if there are fewer than two runs, or a folder holds none.
    """
    if to is not None and Path(to).suffix != ".html":
        raise UsageError(f"{to}: name a file that ends with .html")
    comparison = compared(runs)
    if json:
        every = scores(comparison.results(of="all"))
        print(
            dumps(
                {
                    "groups": {
                        label: [run.name for run in members]
                        for label, members in comparison.groups.items()
                    },
                    "settings": comparison.settings,
                    "unlike": comparison.unlike(),
                    "scores": [asdict(score) for score in every],
                },
                indent=2,
            )
        )
    else:
        _print(comparison)
    if to is not None:
        write_comparison(Path(to), comparison)
        if not json:
            print(to)
    return comparison


def _print(comparison: Comparison) -> None:
    results = comparison.results()
    if scores(results):
        print_table(results, title="Leading measures; --json has all")
    else:
        print("no run was evaluated: swav evaluate does it")
    for task, names in comparison.unlike().items():
        print(f"{task} was not measured alike ({', '.join(names)}): do not compare its values")
    for path, values in comparison.settings.items():
        print(f"{path}: {' | '.join(values)}")
