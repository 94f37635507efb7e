"""``swav demo``: the whole job on the built-in photos, from published weights and from scratch."""

from dataclasses import replace
from pathlib import Path

from swav.data.sources.open import SourceConfig
from swav.evals import Result
from swav.recipes import make_config
from swav.recipes.start_network import LITE0
from swav.report import write_report
from swav.report.score_table import print_table
from swav.run_folder import layout
from swav.training.evaluation import by_settings, evaluate, write_result
from swav.training.run import train
from swav.training.trained_run import TrainedRun

INPUT_SIDE = 128
"""The shorter side of the photos has 96 pixels; 224, as the weights know, is thrice as many."""
NEXT = """\
{report}
  the largest clusters, and a map of all pictures: found without labels
  how good they are by labels, beside raw pixels, an untrained network and a run from scratch
  how the training went, and what lies nearest to a few pictures

swav view {run}                     # the page, with clusters that you can name
swav cluster {run} --k auto         # fewer clusters
swav search {run} PICTURE.jpg       # the nearest pictures to one of yours; --odd, --duplicates"""


def demo(out: str | Path | None = None, *, data: str = "clothes", seed: int = 0) -> TrainedRun:
    """Train twice and return the run from published weights, with ``report.html`` in its folder.

    The second run, from scratch on the same pictures, stands beside it in ``OUT-scratch``.

    Args:
        out: run folder; by default ``runs/demo``, or the first of ``runs/demo-2`` ... that is free.
        data: pictures, as ``swav train`` takes them.
        seed: of the weights, the order of the pictures and the augmentation.
    """
    folder = free_folder() if out is None else Path(out)
    scratch = _scratch_of(folder)
    pictures = SourceConfig(data=data).build().load()
    published = make_config("auto", pictures, "cpu", init=LITE0)
    assert published.input is not None, "published weights say what they are shown"
    shown = replace(published.input, input_size=(published.data.channels, INPUT_SIDE, INPUT_SIDE))
    runs = {
        folder: ("auto", replace(published, input=shown)),
        scratch: ("demo", make_config("demo", pictures, "cpu")),
    }
    trained = [
        # evaluated afterwards, both at once: features that are kept and baselines are shared
        train(
            data, recipe=recipe, out=where, config=replace(config, seed=seed, evaluate_at_end=False)
        )
        for where, (recipe, config) in runs.items()
    ]
    measured = evaluate([folder, scratch], data, device="cpu")
    print_table(by_settings(measured), title=f"{folder} and {scratch}", stderr=True)
    _put_beside(folder, *(results for _, results in measured))
    write_report(folder, pictures)
    print(NEXT.format(report=folder / layout.REPORT, run=folder))
    return trained[0]


def free_folder() -> Path:
    """Return the first run folder of the demo that neither of its runs has taken."""
    folder, number = Path("runs/demo"), 1
    while folder.exists() or _scratch_of(folder).exists():
        number += 1
        folder = Path(f"runs/demo-{number}")
    return folder


def _scratch_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-scratch")


def _put_beside(folder: Path, results: list[Result], from_scratch: list[Result]) -> None:
    """Write the scores of the run from scratch beside those of the other one."""
    beside = {result.label: result for result in from_scratch}
    for result in results:
        write_result(result.with_baseline("scratch", beside[result.label]), folder)
