"""Models measured on pictures: the one driver of evaluations, of the verb and at a run's end."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from swav import config
from swav.config import UsageError
from swav.data.sources.open import Data, SourceConfig, named_or_opened
from swav.data.sources.pictures import Pictures
from swav.engine.launch import loading_workers, resolved_device
from swav.evals import EvalConfig, Result
from swav.evals.harness.baselines import Baselines, Comparison
from swav.evals.harness.cache import cached_in
from swav.evals.harness.eval_data import (
    EvalData,
    fit_and_score,
    fit_on_and_score_on,
    one_set,
)
from swav.evals.harness.subject import Subject, compute_rows
from swav.evals.selection import named_tasks, possible_tasks, tasks_beside, with_crop
from swav.report.figures import write_stages
from swav.run_folder import layout
from swav.training.open_model import Model, ModelInput, open_model

logger = logging.getLogger(__name__)

Found = TypeVar("Found")


class Measured(NamedTuple):
    """A model and its results."""

    model: Model
    results: list[Result]


def evaluate(
    words: Sequence[str | Path],
    data: Data | None = None,
    *,
    tasks: Sequence[str | EvalConfig] | Mapping[str, EvalConfig] | None = None,
    split: str | None = None,
    fit_on: str | None = None,
    score_on: str | None = None,
    out: str | Path | None = None,
    channels: int = 3,
    input_size: int | None = None,
    crop_pct: float | None = None,
    device: str = "auto",
    allow_factory: Collection[str] = (),
) -> list[Measured]:
    """Measure the models that words name; the arguments are those of ``swav.evaluate``.

    Raises:
        ValueError: if a task is unknown or needs labels that the pictures do not have.
    """
    wanted = None if tasks is None else with_crop(named_tasks(tasks), crop_pct)
    _check_words(words)
    model_input = ModelInput(channels=channels, size=input_size)
    opened = [open_model(str(word), model_input, allow_factory=allow_factory) for word in words]
    models = [_prepared(model, device, crop_pct, out) for model in _told_apart(opened, words)]
    if data is not None and fit_on is not None and score_on is not None:
        raise UsageError(f"DATA {data} beside --fit-on: leave one of them out")
    scored = _common_data(models, fit_on) if data is None else data
    _check_networks(models, wanted or {})

    @cache  # once for all models that read pictures alike
    def baselines_of(source: SourceConfig) -> Baselines:
        eval_data = _open_data(source, scored, split, fit_on, score_on)
        return Baselines(eval_data, workers=loading_workers("cpu"))

    return [
        Measured(model, _evaluate(model, baselines_of(model.source), wanted)) for model in models
    ]


def measure(
    comparison: Comparison,
    tasks: Mapping[str, EvalConfig],
    *,
    named: Collection[str] = (),
    model: str,
    folder: Path | None,
) -> tuple[list[Result], list[ValueError]]:
    """Return the result of each task, and why others are impossible.

    Args:
        comparison: a model and its baselines.
        tasks: by the names of their results.
        named: those that somebody asked for: impossible ones raise; others are left out with a
            warning.
        model: what the results call it.
        folder: results are written there as they are made.

    Raises:
        ValueError: if one that was named is impossible.
    """
    results, impossible = [], []
    for name, task in tasks.items():
        try:
            own_name = "" if name == task.name else name
            result = replace(comparison.run(task), name=own_name, model=model)
        except ValueError as error:
            if name in named:
                raise
            logger.warning("%s is left out: %s", name, error)
            impossible.append(error)
            continue
        if folder is not None:
            result = _with_kept_start(result, folder)
            write_result(result, folder)
        results.append(result)
    return results, impossible


def _with_kept_start(result: Result, folder: Path) -> Result:
    """Return the result with the scores of a start that has gone since they were written."""
    path = layout.evaluation(folder, result.label)
    if "start" in result.baselines or not path.exists():
        return result
    with suppress(ValueError, KeyError, TypeError):  # a damaged file is replaced
        kept, now = json.loads(path.read_text("utf-8")), json.loads(json.dumps(result.to_json()))
        if _conditions(kept) == _conditions(now):
            start = kept["baselines"]["start"]
            return replace(result, baselines={"start": start, **result.baselines})
    return result


def _conditions(written: Mapping[str, Any]) -> list[Any]:
    """Return what two results of one network must share to have the same score of its start."""
    return [written["protocol"], written["counts"], written["details"]["input"]]


def write_result(result: Result, folder: Path) -> None:
    """Write ``eval/NAME.json``, and the picture that belongs to it."""
    result.write(layout.evaluation(folder, result.label))
    picture = layout.evaluation(folder, result.label, ".svg")
    write_stages(result.metrics, result.baselines, picture)


def by_settings(measured: Sequence[tuple[Model, Found]]) -> dict[str, list[Found]]:
    """Return the results by group: runs that differ by their seed alone; named by the first."""
    first_of: dict[object, str] = {}
    groups: dict[str, list[Found]] = {}
    for model, results in measured:
        same = model.name if model.config is None else repr(replace(model.config, seed=0))
        label = model.name if model.name not in groups else str(model.folder or model.name)
        groups.setdefault(first_of.setdefault(same, label), []).append(results)
    return groups


def differing_settings(models: Sequence[Model]) -> dict[str, list[str]]:
    """Return the settings in which runs differ, with the value of each run."""
    runs = [model.config for model in models if model.config is not None]
    paths = dict.fromkeys(
        path for run in runs[1:] for path in config.differences(runs[0], run) if path != "seed"
    )
    values = [dict(config.flatten(config.to_dict(run))) for run in runs]
    return {path: [str(value.get(path)) for value in values] for path in paths}


def _evaluate(
    model: Model, baselines: Baselines, wanted: Mapping[str, EvalConfig] | None
) -> list[Result]:
    eval_data = baselines.data
    cache = compute_rows if model.folder is None else cached_in(model.folder / layout.FEATURES)
    subject = Subject(
        eval_data,
        model.network,
        model.transform,
        model.clusters,
        cache,
        encoder_of=model.encoder_of,
    )
    subject = replace(subject, workers=loading_workers(subject.device))
    comparison = Comparison(subject, model.untrained, model.seed, baselines, model.start)
    tasks = named_tasks(possible_tasks(eval_data)) if wanted is None else dict(wanted)
    tasks |= named_tasks(tasks_beside(tasks, eval_data))
    results, impossible = measure(
        comparison, tasks, named=wanted or (), model=model.name, folder=model.folder
    )
    if impossible and not results:
        raise impossible[-1]
    return results


def _check_words(words: Sequence[str | Path]) -> None:
    if not words:
        raise UsageError("nothing to evaluate: name a run folder or another model")
    same = [_same(word) for word in words]
    for number, word in enumerate(words):
        if same[number] in same[:number]:
            raise UsageError(f"{word} is named twice: one model is one run, not two seeds")


def _same(word: str | Path) -> str:
    """Return what two words for one model have in common."""
    return str(Path(word).resolve()) if Path(word).exists() else str(word)


def _told_apart(models: Sequence[Model], words: Sequence[str | Path]) -> list[Model]:
    """Return the models with names of their own: a/model and b/model are not two runs of one."""
    names = Counter(model.name for model in models)
    return [
        replace(model, name=str(word)) if names[model.name] > 1 and model.config is None else model
        for model, word in zip(models, words, strict=True)
    ]


def _prepared(model: Model, device: str, crop_pct: float | None, out: str | Path | None) -> Model:
    """Return the model on its device, with a folder to keep its results if there is any."""
    if model.network is not None and model.untrained is not None:
        where = torch.device(resolved_device(device))
        model.network.to(where)
        model.untrained.to(where)
        if model.start is not None:
            model.start.network.to(where)
    if model.transform is not None and crop_pct is not None:
        model = replace(model, transform=replace(model.transform, crop_pct=crop_pct))
        if model.start is not None:
            shown = replace(model.start.transform, crop_pct=crop_pct)
            model = replace(model, start=model.start._replace(transform=shown))
    if model.folder is not None:
        return model
    if out is None:
        logger.warning("%s is no run folder: its results are kept only with --out", model.name)
        return model
    return replace(model, folder=Path(out) / model.name.replace("/", "_").replace(":", "_"))


def _check_networks(models: Sequence[Model], tasks: Mapping[str, EvalConfig]) -> None:
    """Refuse what is no network where a task trains one, before any other model is measured."""
    without = [model.name for model in models if model.network is None]
    need = [name for name, task in tasks.items() if "pixels" not in task.baselines]
    if without and need:
        raise UsageError(
            f"{without[0]} cannot be measured by {', '.join(need)}, which train a network: leave "
            f"{without[0]} out, or ask for tasks such as knn and linear"
        )


def _common_data(models: Sequence[Model], fit_on: str | None) -> str:
    """Return the pictures that the runs were trained on; imported ones do not know theirs."""
    trained_on = sorted({model.source.data for model in models if model.config is not None} - {""})
    if len(trained_on) == 1 or fit_on is not None:
        return trained_on[0] if trained_on else ""
    known = (
        f"trained on {', '.join(trained_on)}"
        if trained_on
        else "no run that knows its own was given"
    )
    raise UsageError(f"no pictures to evaluate on: {known}, so name them after the models")


def _open_data(
    source: SourceConfig,
    data: Data,
    split: str | None,
    fit_on: str | None,
    score_on: str | None,
) -> EvalData:
    if (fit_on is None) != (score_on is None):
        raise UsageError("--fit-on and --score-on belong together: give both, or only DATA")
    if fit_on is not None and score_on is not None:
        if split is not None:
            raise UsageError("--split is of DATA: leave it out beside --fit-on and --score-on")
        return fit_on_and_score_on(source, fit_on, score_on).load()
    opened = named_or_opened(data, channels=source.channels)
    if isinstance(opened, Pictures):
        if split is not None:
            raise UsageError("--split is of DATA by its name: pictures of a program have no parts")
        return one_set(opened).load()
    if opened != source.data:
        source = replace(source, data=opened, split=None)
    return fit_and_score(source, split=split).load()
