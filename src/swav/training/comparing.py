"""Runs that were trained, side by side: what they left in their folders, by their settings."""

from collections.abc import Sequence
from pathlib import Path

from swav.config import UsageError
from swav.recipes.train_config import read_train_config
from swav.report.compare_page import ComparedRun, Comparison
from swav.run_folder import layout
from swav.run_folder.readers import Absent, read_curves, read_evaluations
from swav.run_folder.record import read_record
from swav.training.evaluation import by_settings, differing_settings
from swav.training.open_model import Model


def compared(words: Sequence[str | Path]) -> Comparison:
    """Return runs in groups that differ by their seed alone; nothing is measured anew.

    Raises:
        ValueError: if there are fewer than two, one is named twice, or one is no run folder.
    """
    folders = [Path(word) for word in words]
    if len({folder.resolve() for folder in folders}) < max(len(folders), 2):
        raise UsageError("name two run folders or more, each once")
    models = [_model(folder) for folder in folders]
    groups = by_settings([(model, (model, _run(model.name, model.folder))) for model in models])
    firsts = [members[0][0] for members in groups.values()]
    return Comparison(
        groups={label: [run for _, run in members] for label, members in groups.items()},
        settings=differing_settings(firsts),
    )


def _model(folder: Path) -> Model:
    """Return what a run is called and how it was trained, without its network."""
    if not layout.is_run(folder):
        raise UsageError(
            f"{folder} is no run folder (no {layout.CONFIG}): give the --out of a training"
        )
    config = read_train_config(folder / layout.CONFIG)
    return Model(name=folder.resolve().name, folder=folder, config=config)


def _run(name: str, folder: Path | None) -> ComparedRun:
    assert folder is not None
    try:
        curves = read_curves(folder)
    except Absent:
        curves = {}
    try:
        evaluations, _ = read_evaluations(folder)
    except Absent:
        evaluations = []
    return ComparedRun(
        name=name, record=read_record(folder), curves=curves, evaluations=evaluations
    )
