"""Which tasks are meant: by their names, those of published protocols, or what labels allow."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from swav.config import UnknownNameError, UsageError, with_values
from swav.data.sources.pictures import Pictures
from swav.evals import EvalConfig
from swav.evals.harness.eval_data import EvalData
from swav.evals.presets import PRESETS

TASKS: dict[str, type[EvalConfig]] = {config.name: config for config in get_args(EvalConfig)}
LABELLED = ("knn", "linear", "clusters")
"""Tasks that are done unless others are named, for pictures with labels."""
UNLABELLED = ("clusters", "part_retrieval")
"""The same for pictures without."""
MOST_AT_END, MOST_OTHERS_AT_END = {"knn": 20_000}, 5_000
"""Pictures of each set at the end of a run, by task; `swav evaluate` takes all."""
RENAMED = {"parts": "part_retrieval"}
"""Tasks by the names they had before."""
BESIDE_UP_TO = 100_000
"""Pictures; of more, kNN and linear take long and much memory, and are done if they are named."""


def task_config(task: str | EvalConfig) -> EvalConfig:
    """Return a configuration as it is, or that of a task: its default, or a published one.

    Raises:
        ValueError: if there is no such task, with the nearest name.
    """
    if not isinstance(task, str):
        return task
    name = _underscored(task)
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
    configs = named_tasks(names)
    for path, value in values.items():
        name, _, rest = path.partition(".")
        meant = [title for title, config in configs.items() if config.name == name]
        if not meant:
            raise UsageError(f"--{path} is an option of {name}: add {name} to --tasks")
        configs.update({title: with_values(configs[title], {rest: value}) for title in meant})
    return configs or None


def named_tasks(
    tasks: Sequence[str | EvalConfig] | Mapping[str, EvalConfig],
) -> dict[str, EvalConfig]:
    """Return what is measured under the names of its results."""
    if isinstance(tasks, Mapping):
        for name, task in tasks.items():
            if not name.isidentifier() or (name in TASKS and name != task.name):
                raise UsageError(
                    f"{name!r} cannot name a result of {task.name}: use letters, digits and _, and "
                    "not the name of another task"
                )
        return dict(tasks)
    names = [_underscored(task) if isinstance(task, str) else task.name for task in tasks]
    if len(set(names)) < len(names):
        raise UsageError(f"tasks {', '.join(names)} name one twice: give configurations names")
    return dict(zip(names, map(task_config, tasks), strict=True))


def with_crop(tasks: Mapping[str, EvalConfig], crop_pct: float | None) -> dict[str, EvalConfig]:
    """Return the tasks with the crop that was asked for in place of their own."""
    if crop_pct is None:
        return dict(tasks)
    return {
        name: task
        if task.input.crop_pct is None
        else with_values(task, {"input.crop_pct": crop_pct})
        for name, task in tasks.items()
    }


def _underscored(name: str) -> str:
    return name.replace("-", "_")


def possible_tasks(eval_data: EvalData) -> tuple[str, ...]:
    """Return the tasks that are done unless others are named: those that the labels allow."""
    sets = (eval_data.train, eval_data.test)
    return LABELLED if all(part is None or is_labelled(part) for part in sets) else UNLABELLED


def at_end(eval_data: EvalData, names: Sequence[str]) -> list[tuple[EvalData, list[str]]]:
    """Return the pictures that the tasks at a run's end are measured on: so many in seconds."""
    groups: dict[int, list[str]] = {}
    largest = max(len(eval_data.train), len(eval_data.scored))
    for name in names:
        most = MOST_AT_END.get(name, MOST_OTHERS_AT_END)
        groups.setdefault(min(most, largest), []).append(name)
    return [(eval_data.at_most(most), tasks) for most, tasks in groups.items()]


def tasks_beside(asked: Mapping[str, EvalConfig], eval_data: EvalData) -> list[str]:
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


def is_labelled(pictures: Pictures) -> bool:
    """Return whether there are two classes or more."""
    return pictures.labels is not None and len(np.unique(pictures.labels)) > 1
