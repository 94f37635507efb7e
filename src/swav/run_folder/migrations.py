"""What earlier versions wrote, brought to the present form: small steps on plain values.

Reading goes through here and changes nothing on the disk. A step moves what is there and adds what
came later with the value that stood for it before; anything else is left for the strict reader
to refuse.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

Values = dict[str, Any]
Step = Callable[[Values], None]
"""Changes a copy in place."""

SCHEMA = 2
"""Of ``config.yaml`` and ``run.json``; a file without a number is of schema 1."""

FORMER_TASKS: Mapping[str, str] = {"parts": "part_retrieval"}

PROJECTOR: Values = {"num_hidden": 1, "bias": True}
EXPANDER: Values = {"num_hidden": 2, "bias": False}
FORMER_HEADS: Mapping[str, Values] = {
    "swav": PROJECTOR,
    "deepcluster": PROJECTOR,
    "sela": PROJECTOR,
    "simclr": PROJECTOR,
    "moco": {**PROJECTOR, "batchnorm": False},  # it never had any, so there was no option
    "byol": PROJECTOR,
    "instdisc": PROJECTOR,
    "pirl": PROJECTOR,
    "barlow": EXPANDER,
    "vicreg": EXPANDER,
}
"""What was fixed about the head of each method, and is a setting now."""


def migrate_config(values: Any) -> Any:
    """Return the values of ``config.yaml`` in the present form, without its schema number.

    Raises:
        ValueError: if a later version wrote it.
    """
    if not isinstance(values, Mapping):
        return values
    migrated = deepcopy(dict(values))
    for schema in range(schema_of(migrated), SCHEMA):
        for step in CONFIG_STEPS[schema]:
            step(migrated)
    migrated.pop("schema", None)
    return migrated


def migrate_record(record: Values) -> Values:
    """Return ``run.json`` in the present form.

    Keys that came later (``method_title``, ``outputs_step``, ``outputs_outdated``) stay away: who
    reads them knows what it means that they are missing.

    Raises:
        ValueError: if a later version wrote it.
    """
    schema_of(record)
    return {**record, "schema": SCHEMA}


def migrate_result(result: Values) -> Values:
    """Return the result of an evaluation with the present name of its task."""
    task = str(result.get("task"))
    return {**result, "task": FORMER_TASKS[task]} if task in FORMER_TASKS else result


def schema_of(values: Mapping[str, Any]) -> int:
    """Return the schema number of a file.

    Raises:
        ValueError: if it is none, or that of a later version.
    """
    schema = values.get("schema", 1)
    if type(schema) is not int or schema < 1:
        raise ValueError(f"schema {schema!r} is not a number of a schema, such as {SCHEMA}")
    if schema > SCHEMA:
        raise ValueError(
            f"written by a later version of swav (schema {schema}, this one reads up to {SCHEMA}): "
            "upgrade swav"
        )
    return schema


def views_settings(values: Values) -> None:
    """What describes the views left the settings of the data."""
    for key in ("pipeline", "group", "time_window"):
        move(values, f"data.{key}", f"views.{key}")


def head_settings(values: Values) -> None:
    """Methods with a projection head have its settings together."""
    method = _part(values, "method")
    name = str(method.get("name"))
    was_flat = {"hidden_dim", "embed_dim"} & method.keys() and "head" not in method
    if not was_flat or name not in FORMER_HEADS:
        return
    method["head"] = dict(FORMER_HEADS[name])
    for key in ("hidden_dim", "embed_dim"):
        move(method, key, f"head.{key}")
    move(method, "head_batchnorm", "head.batchnorm")
    if name in ("byol", "barlow", "vicreg"):
        method.setdefault("batchnorm_per_view", False)  # views passed BatchNorm together


def pretext_batchnorm(values: Values) -> None:
    """The tile networks of jigsaw and relative position have no head to name BatchNorm after."""
    method = _part(values, "method")
    if method.get("name") in ("jigsaw", "relative"):
        move(method, "head_batchnorm", "batchnorm")


def prior_settings(values: Values) -> None:
    """The prior of the prototypes' use is one value, and its shares are weights."""
    method = _part(values, "method")
    if method.get("name") == "swav":
        for key, later in (("exponent", "exponent"), ("shares", "weights"), ("strength",) * 2):
            move(method, f"prior_{key}", f"prior.{later}")


def vectors_decay(values: Values) -> None:
    """Whether biases and normalisation layers decay is a setting; it was not."""
    optim = _part(values, "optim")
    if optim:
        optim.setdefault("decay_vectors", True)


def published_start(values: Values) -> None:
    """What the weights start from is one setting, of more than timm's published ones."""
    backbone = _part(values, "backbone")
    if isinstance(backbone.get("pretrained"), bool):
        values.setdefault("init", "timm" if backbone.pop("pretrained") else "random")


def tuning(values: Values) -> None:
    """What is trained of starting weights is a setting; all was, at one rate in all layers."""
    optim = _part(values, "optim")
    if optim:
        values.setdefault("tune", "all")
        values.setdefault("input", None)
        values.setdefault("keep", "trained")
        # of a random start the setting says nothing yet: it is there for what it may start
        random = values.get("init", "random") == "random"
        optim.setdefault("layer_decay", 0.75 if random else 1.0)


CONFIG_STEPS: Mapping[int, tuple[Step, ...]] = {
    1: (
        views_settings,
        head_settings,
        pretext_batchnorm,
        prior_settings,
        vectors_decay,
        published_start,
        tuning,
    ),
}
"""What leads from each schema to the next."""


def move(values: Values, path: str, to: str) -> None:
    """Move a value to another path, unless it is missing or something stands there."""
    *parents, key = path.split(".")
    *new_parents, new_key = to.split(".")
    source: Any = values
    for parent in parents:
        source = _part(source, parent)
    if key not in source:
        return
    target: Any = values
    for parent in new_parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            return
    if new_key not in target:
        target[new_key] = source.pop(key)


def _part(values: Values, key: str) -> Values:
    """Return a part of the values, an empty one where there is none."""
    part = values.get(key)
    return part if isinstance(part, dict) else {}
