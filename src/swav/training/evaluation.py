"""``swav evaluate``: how good the features of models are, beside those of no training at all."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from swav.config import UnknownNameError, UsageError, with_values
from swav.data.sources.open import SourceConfig
from swav.data.sources.pictures import Pictures
from swav.engine.launch import resolved_device
from swav.evals import EvalConfig, Result
from swav.evals.harness.baselines import (
    Comparison,
    PixelBaseline,
    fit_and_score,
    fit_on_and_score_on,
)
from swav.evals.harness.cache import cached_in
from swav.evals.harness.subject import EvalData, Subject, compute_rows
from swav.evals.presets import PRESETS
from swav.report.figures import write_stages
from swav.report.score_table import differing_settings, grouped, print_table
from swav.training.open_model import Input, Model, open_model

logger = logging.getLogger(__name__)

TASKS: dict[str, type[EvalConfig]] = {config.name: config for config in get_args(EvalConfig)}
LABELLED = ("knn", "linear", "clusters")
"""Tasks that are done unless others are named, for pictures with labels."""
UNLABELLED = ("clusters", "part_retrieval")
"""The same for pictures without."""
RENAMED = {"parts": "part_retrieval"}
"""Tasks by the names they had before."""
BESIDE_UP_TO = 100_000
"""Pictures; of more, kNN and linear take long and much memory, and are done if they are named."""


def evaluate(
    models: str | Path | Sequence[str | Path],
    data: str | None = None,
    *,
    tasks: Sequence[str | EvalConfig] | Mapping[str, EvalConfig] | None = None,
    split: str | None = None,
    fit_on: str | None = None,
    score_on: str | None = None,
    out: str | Path | None = None,
    channels: int = 3,
    input_size: int | None = None,
    crop_pct: float | None = None,
    device: str = "cpu",
    allow_factory: Collection[str] = (),
    as_json: bool = False,
) -> list[Result]:
    """Measure backbones, with the untrained network and raw pixels beside each.

    Prints a table (or JSON) and writes ``eval/NAME.json`` into every run folder, of a task or of
    its published protocol.

    Args:
        models: run folders, timm names or folders, state dicts, ``random``, ``pixels``.
        data: pictures; by default those of the training.
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
        crop_pct: share of each side that the centre crop keeps, for all models; by default all of
            a run's pictures, and what is known of other models. Published protocols have 0.875.
        device: cpu, cuda, mps, or one device such as cuda:1.
        allow_factory: ``package.module:function`` that a run may name as its backbone.
        as_json: print JSON.

    Raises:
        ValueError: if a task is unknown or needs labels that the pictures do not have.
    """
    wanted = None if tasks is None else _named(tasks)
    words = [models] if isinstance(models, str | Path) else list(models)
    if not words:
        raise UsageError("nothing to evaluate: name a run folder or another model")
    twice = [
        str(word) for place, word in enumerate(words) if _same(word) in map(_same, words[:place])
    ]
    if twice:
        raise UsageError(f"{twice[0]} is named twice: one model is one run, not two seeds")
    shown = Input(channels=channels, size=input_size)
    found = [open_model(str(word), shown, allow_factory=allow_factory) for word in words]
    opened = _told_apart(found, words)
    opened = [_prepared(model, device, crop_pct, out) for model in opened]
    if data and fit_on is not None and score_on is not None:
        raise UsageError(f"DATA {data} beside --fit-on: leave one of them out")
    data = data or _common_data(opened, fit_on)
    _check_networks(opened, wanted or {})

    @cache  # once for all models that read pictures alike
    def pixels_of(source: SourceConfig) -> PixelBaseline:
        return PixelBaseline(_open_parts(source, data, split, fit_on, score_on))

    results = [_evaluate(model, pixels_of(model.source), wanted) for model in opened]
    if as_json:
        flat = [result.to_json() for found in results for result in found]
        print(json.dumps(flat, indent=2))
    else:
        print_table(grouped(opened, results), title=", ".join(map(str, words)))
        for path, values in differing_settings(opened).items():
            print(f"{path}: {' | '.join(values)}")
    return [result for found in results for result in found]


def task_config(task: str | EvalConfig) -> EvalConfig:
    """Return a configuration as it is, or that of a task: its default, or a published one.

    Raises:
        ValueError: if there is no such task, with the nearest name.
    """
    if not isinstance(task, str):
        return task
    name = _plain(task)
    if name in PRESETS:
        return PRESETS[name]()
    if name in RENAMED:
        raise UsageError(f"unknown task {task!r}. Did you mean {RENAMED[name]!r}?")
    if name not in TASKS:
        raise UnknownNameError("task", task, [*TASKS, *PRESETS])
    return TASKS[name]()


def configured(tasks: str | None, values: Mapping[str, Any]) -> dict[str, EvalConfig] | None:
    """Return the tasks of a comma-separated list, with the values at ``TASK.option`` in place.

    Options of a task are those of its published protocols too. None are those that are done unless
    others are named, which have no options then.

    Raises:
        ValueError: if a task is unknown, an option does not fit or is of a task that is not done.
    """
    names = [] if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    configs = _named(names)
    for path, value in values.items():
        name, _, rest = path.partition(".")
        meant = [each for each, config in configs.items() if config.name == name]
        if not meant:
            raise UsageError(f"--{path} is an option of {name}: add {name} to --tasks")
        configs.update({each: with_values(configs[each], {rest: value}) for each in meant})
    return configs or None


def _named(tasks: Sequence[str | EvalConfig] | Mapping[str, EvalConfig]) -> dict[str, EvalConfig]:
    """Return what is measured under the names of its results."""
    if isinstance(tasks, Mapping):
        for name, task in tasks.items():
            if not name.isidentifier() or (name in TASKS and name != task.name):
                raise UsageError(
                    f"{name!r} cannot name a result of {task.name}: use letters, digits and _, and "
                    "not the name of another task"
                )
        return dict(tasks)
    names = [_plain(task) if isinstance(task, str) else task.name for task in tasks]
    if len(set(names)) < len(names):
        raise UsageError(f"tasks {', '.join(names)} name one twice: give configurations names")
    return dict(zip(names, map(task_config, tasks), strict=True))


def _own(name: str, task: EvalConfig) -> str:
    return "" if name == task.name else name


def _plain(name: str) -> str:
    return name.replace("-", "_")


def possible_tasks(eval_data: EvalData) -> tuple[str, ...]:
    """Return the tasks that are done unless others are named: those that the labels allow."""
    sets = (eval_data.train, eval_data.test)
    return LABELLED if all(part is None or is_labelled(part) for part in sets) else UNLABELLED


def is_labelled(pictures: Pictures) -> bool:
    """Return whether there are two classes or more."""
    return pictures.labels is not None and len(np.unique(pictures.labels)) > 1


def write_result(result: Result, folder: Path) -> None:
    """Write ``eval/NAME.json``, and the picture that belongs to it."""
    result.write(folder / "eval" / f"{result.label}.json")
    if result.task == "layers":
        write_stages(result.metrics, result.baselines, folder / "eval" / f"{result.label}.svg")


def _evaluate(
    model: Model, pixels: PixelBaseline, tasks: Mapping[str, EvalConfig] | None
) -> list[Result]:
    eval_data = pixels.data
    cache = compute_rows if model.folder is None else cached_in(model.folder / "features")
    subject = Subject(eval_data, model.network, model.transform, model.clusters, cache)
    comparison = Comparison(subject, model.untrained, model.seed, pixels)
    results = []
    impossible: ValueError | None = None
    asked = _named(possible_tasks(eval_data)) if tasks is None else dict(tasks)
    for name, task in (asked | _named(_beside(asked, eval_data))).items():
        try:
            result = replace(comparison.run(task), name=_own(name, task), model=model.name)
        except ValueError as error:
            if name in (tasks or {}):
                raise
            logger.warning("%s is left out: %s", name, error)
            impossible = error
            continue
        if model.folder is not None:
            write_result(result, model.folder)
        results.append(result)
    if impossible is not None and not results:
        raise impossible
    return results


def _beside(asked: Mapping[str, EvalConfig], eval_data: EvalData) -> list[str]:
    """Return the tasks that stand beside those that train a network, which pixels are not.

    What the untrained network and raw pixels score there says how easy the pictures are.
    """
    done = {task.name for task in asked.values()}
    if all("pixels" in task.baselines for task in asked.values()):
        return []
    sets = [part for part in (eval_data.train, eval_data.test) if part is not None]
    if not all(map(is_labelled, sets)) or sum(map(len, sets)) > BESIDE_UP_TO:
        return []
    return [name for name in ("knn", "linear") if name not in done]


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
    if model.transform is not None and crop_pct is not None:
        model = replace(model, transform=replace(model.transform, crop_pct=crop_pct))
    if model.folder is not None:
        return model
    if out is None:
        logger.warning("%s is no run folder: its results are kept only with --out", model.name)
        return model
    return replace(model, folder=Path(out) / model.name.replace("/", "_").replace(":", "_"))


def _check_networks(models: Sequence[Model], tasks: Mapping[str, EvalConfig]) -> None:
    """Refuse raw pixels where a task trains a network, before any other model is measured."""
    without = [model.name for model in models if model.network is None]
    need = [name for name, task in tasks.items() if "pixels" not in task.baselines]
    if without and need:
        raise UsageError(
            f"{without[0]} cannot be measured by {', '.join(need)}, which train a network: leave "
            f"{without[0]} out, or ask for tasks such as knn and linear"
        )


def _common_data(models: Sequence[Model], fit_on: str | None) -> str:
    """Return the pictures that the runs were trained on."""
    found = sorted({model.source.data for model in models if model.config is not None})
    if len(found) == 1 or fit_on is not None:
        return found[0] if found else ""
    known = f"the runs were trained on {', '.join(found)}" if found else "no run was given"
    raise UsageError(f"no pictures to evaluate on: {known}, so name them after the models")


def _open_parts(
    source: SourceConfig,
    data: str,
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
    if data != source.data:
        source = replace(source, data=data, split=None)
    return fit_and_score(source, split=split).load()
