"""``swav evaluate``: how good the features of models are, beside those of no training at all."""

from collections.abc import Mapping, Sequence
from json import dumps
from os import PathLike, fspath
from pathlib import Path

from swav.data.sources.open import Data
from swav.evals import EvalConfig, Result
from swav.report.score_table import print_table
from swav.training import evaluation
from swav.training.open_model import with_filters

__all__ = ["evaluate"]


def evaluate(
    models: str | PathLike[str] | Sequence[str | PathLike[str]],
    data: Data | None = None,
    tasks: Sequence[str | EvalConfig] | Mapping[str, EvalConfig] | None = None,
    *,
    split: str | None = None,
    fit_on: str | None = None,
    score_on: str | None = None,
    out: str | Path | None = None,
    channels: int = 3,
    input_size: int | None = None,
    crop_pct: float | None = None,
    filters: int | None = None,
    device: str = "auto",
    allow_factory: Sequence[str] = (),
    json: bool = False,
) -> list[Result]:
    """Measure backbones, with the untrained network, raw pixels and patch k-means beside each.

    Prints a table (or JSON) and writes ``eval/NAME.json`` into every run folder, of a task or of
    its published protocol.

    Args:
        models: run folders, timm names or folders, state dicts, ``random``, ``pixels``,
            ``patch-kmeans``.
        data: pictures, also a list of paths or images; by default those of the training.
        tasks: names of ``swav list tasks``, or configurations of ``swav.evals``, also under names
            of your own; by default those that the labels allow of knn, linear, clusters and
            part_retrieval.
        split: part to score, of data that has parts; by default test, or val without test.
        fit_on: pictures to fit on, with ``score_on``.
        score_on: pictures to score, with ``fit_on``.
        out: folder that keeps the results of models that are no run folders, each in a folder
            of its own.
        channels: of the pictures, for models that are no run folders.
        input_size: side of the pictures that these are shown; by default what they know.
        crop_pct: share of each side that the centre crop keeps, for all models and tasks; by
            default all of a run's pictures, what is known of other models, and what a published
            protocol says (0.875).
        filters: of ``patch-kmeans`` among the models; by default 200.
        device: auto, cpu, cuda, mps, or one device such as cuda:1.
        allow_factory: ``package.module:function`` that a run may name as its backbone.
        json: print the list of results as JSON.

    Raises:
        ValueError: if a task is unknown or needs labels that the pictures do not have.
    """
    given = [models] if isinstance(models, str | PathLike) else models
    words = with_filters([fspath(model) for model in given], filters)
    measured = evaluation.evaluate(
        words,
        data,
        tasks=tasks,
        split=split,
        fit_on=fit_on,
        score_on=score_on,
        out=out,
        channels=channels,
        input_size=input_size,
        crop_pct=crop_pct,
        device=device,
        allow_factory=allow_factory,
    )
    results = [result for each in measured for result in each.results]
    if json:
        print(dumps([result.to_json() for result in results], indent=2))
        return results
    print_table(evaluation.by_settings(measured), title=", ".join(map(str, words)))
    settings = evaluation.differing_settings([each.model for each in measured])
    for path, values in settings.items():
        print(f"{path}: {' | '.join(values)}")
    return results
