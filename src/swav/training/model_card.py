"""What is said of a trained network to those who get it without its run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swav.recipes.train_config import TrainConfig
from swav.report.wording import (
    BASELINES,
    count,
    data_name,
    drawbacks,
    duration,
    evaluation_title,
    printable,
    private,
    score,
    verdict,
)
from swav.run_folder.readers import Absent, Evaluation, read_evaluations
from swav.run_folder.record import IMPORTED, hands_out_start, is_imported, read_record


def model_card(folder: Path, config: TrainConfig, usage: str) -> str:
    """Return the text of a README.md in Markdown.

    Args:
        folder: of the run.
        config: of the run.
        usage: Python code that opens the network.
    """
    record = read_record(folder)
    try:
        evaluations, _ = read_evaluations(folder)
    except Absent:
        evaluations = []
    sections = (
        _title(config, record),
        private(verdict(record)) if hands_out_start(record) else "",
        _warning(record, evaluations),
        *(() if is_imported(folder) else (_pictures(config, record), _training(config, record))),
        _scores(evaluations),
        f"## How to load it\n\nIn this folder:\n\n```python\n{usage.strip()}\n```",
    )
    return "\n\n".join(filter(None, sections)) + "\n"


def _title(config: TrainConfig, record: Mapping[str, Any]) -> str:
    start = record.get("start")
    if record.get("status") == IMPORTED and start is not None:
        return (
            f"# {config.backbone.title}, imported\n\nThe weights {_described(start)}, read from a "
            f"file in the layout `{start['layout']}` and not trained by `swav`."
        )
    data = _cell(data_name(config.data.data))
    if start is not None and hands_out_start(record):
        return (
            f"# {config.backbone.title}, with clusters\n\nThe weights {_described(start)}, as they "
            f"were. `swav` trained them further with {config.method.title} on `{data}`, which made "
            "them worse."
        )
    return (
        f"# {config.backbone.title}, pre-trained without labels\n\n"
        f"Trained by `swav` with {config.method.title} (`{config.method.name}`) on `{data}`"
        f"{_started(record.get('start'))}."
    )


def _started(start: Mapping[str, Any] | None) -> str:
    """Return the rest of a sentence on the weights that a run started from."""
    if start is None:
        return ", from random weights"
    return f", starting from the weights {_described(start)}"


def _described(start: Mapping[str, Any]) -> str:
    """Return name, licence and hash of the weights that a record says a run started from."""
    licence = f"licence {start['licence']}" if start["licence"] else "licence not known"
    return f"`{private(str(start['name']))}` ({licence}, sha256 `{start['sha256']}`)"


def _warning(record: Mapping[str, Any], evaluations: Sequence[Evaluation]) -> str:
    """Return what speaks against the network, nothing if nothing does."""
    against = " ".join(drawbacks(record, evaluations))
    return against and f"> **Warning.** {against}"


def _pictures(config: TrainConfig, record: Mapping[str, Any]) -> str:
    """Return how many pictures there were, of which size, and their classes if they had any."""
    facts = record.get("pictures", {})  # earlier runs have none
    lines = [count(int(record["num_images"]), "picture")] if "num_images" in record else []
    if facts:
        lines.append(f"median size {facts['height']} x {facts['width']} pixels (height x width)")
    lines.append(count(config.data.channels, "channel"))
    if facts.get("classes"):
        lines.append(f"labelled, {facts['classes']:,} classes; labels are for scores alone")
    return _listed("Pictures", lines)


def _training(config: TrainConfig, record: Mapping[str, Any]) -> str:
    size = "x".join(map(str, config.views.groups[0].size))
    lines = [
        f"recipe `{record.get('recipe', 'unknown')}`, seed {config.seed}",
        f"{count(config.epochs, 'epoch')}, batches of {config.optim.batch_size}, "
        f"{config.optim.optimizer} at a learning rate of {config.optim.learning_rate:g}",
        f"views {config.views.description}; features are of whole pictures at {size}",
    ]
    if record.get("seconds"):
        device = record.get("machine", {}).get("device", "unknown device")
        lines.append(f"{duration(record['seconds'])} on {device}")
    if "swav" in record.get("versions", {}):
        lines.append(f"swav {record['versions']['swav']}, torch {record['versions'].get('torch')}")
    return _listed("Training", lines)


def _scores(evaluations: Sequence[Evaluation]) -> str:
    """Return the leading metric of each evaluation beside its baselines, nothing without any."""
    rows = [row for evaluation in evaluations if (row := _score_row(evaluation))]
    header = "| task | measure | value | 95 % interval | without training |\n|---|---|---|---|---|"
    return "\n".join(["## Scores", "", header, *rows]) if rows else ""


def _score_row(evaluation: Evaluation) -> str:
    name = evaluation.lead
    if name is None:
        return ""
    about = evaluation.about[name]
    interval = evaluation.intervals.get(name)
    sure = "" if interval is None else " to ".join(score(about, bound) for bound in interval)
    beside = [
        f"{BASELINES.get(baseline, baseline)} {score(about, metrics[name])}"
        for baseline, metrics in evaluation.baselines.items()
        if name in metrics
    ]
    value = score(about, evaluation.metrics[name])
    cells = (evaluation_title(evaluation), about.title, value, sure, ", ".join(beside))
    return f"| {' | '.join(map(_cell, cells))} |"


def _listed(title: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {line}" for line in lines)])


def _cell(text: str) -> str:
    """Return text that cannot end a cell, a line or a piece of code."""
    return printable(text).replace("|", "\\|").replace("`", "'").replace("\n", " ")
