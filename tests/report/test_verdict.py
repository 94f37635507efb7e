"""The verdict says what the scores say, and offers a remedy where they are weak."""

import numpy as np
import pytest

from swav.report.verdict import health_line, next_steps, numbers, verdict_lines
from swav.run_folder.readers import Evaluation
from swav.run_folder.result import Metric

HEALTHY = {"loss": np.array([4.0, 2.0]), "ln_k": np.full(2, 4.0), "prototypes_used": np.ones(2)}


def task(title: str, value: float, **baselines: float) -> Evaluation:
    return Evaluation(
        task="knn",
        title=title,
        protocol={},
        about={"top1": Metric(title="accuracy", is_share=True)},
        lead="top1",
        metrics={"top1": value},
        intervals={"top1": (value - 0.05, value + 0.05)},
        baselines={name: {"top1": baseline} for name, baseline in baselines.items()},
    )


def test_better_everywhere_is_one_sentence() -> None:
    scores = [task(name, 0.8, random=0.5, pixels=0.6) for name in ("Probe", "Neighbours")]
    (line,) = verdict_lines({}, scores)
    assert line.kind == "good"
    assert line.text == "Better than the untrained network and raw pixels in both measures."
    commands = [step.command for step in next_steps({}, scores, HEALTHY, run="my run")]
    assert commands[0] == "swav view 'my run'"


def test_a_network_that_stayed_as_it_was_is_not_weak_beside_itself() -> None:
    scores = [task(name, 0.8, start=0.8, pixels=0.6) for name in ("Probe", "Neighbours")]
    lines = verdict_lines({}, scores)
    assert [line.kind for line in lines] == ["unknown", "good"]
    assert lines[0].text.startswith("The network is the one it started from")
    steps = next_steps({}, scores, HEALTHY, run="run")
    assert all("Train for longer" not in step.why for step in steps)
    assert numbers(scores, HEALTHY)[0].good == "good: above 60.0\u00a0%, raw pixels"


def test_where_it_is_not_better_the_measure_is_named_and_a_remedy_comes_first() -> None:
    scores = [task("Probe", 0.8, random=0.5), task("Neighbours", 0.8, random=0.78)]
    (line,) = verdict_lines({}, scores)
    assert line.kind == "bad"
    expected = "Not better than the untrained network by neighbours (1 of 2 measures better)."
    assert line.text == expected
    first, *_ = next_steps({}, scores, HEALTHY, run="run")
    assert first.command == "swav train DATA --init timm"
    started = next_steps({"start": {"name": "timm"}}, scores, HEALTHY, run="run")
    assert "--init" not in started[0].command


def test_without_scores_it_is_not_called_good() -> None:
    (line,) = verdict_lines({}, [])
    assert line.kind == "unknown"
    commands = [step.command for step in next_steps({}, [], HEALTHY, run="run")]
    assert "swav evaluate run" in commands


@pytest.mark.parametrize(("loss", "kind"), [(2.0, "good"), (3.97, "bad"), (4.2, "bad")])
def test_health(loss: float, kind: str) -> None:
    line = health_line(HEALTHY | {"loss": np.array([4.0, loss])})
    assert line is not None
    assert line.kind == kind


def test_there_are_at_most_eight_numbers_each_with_what_is_good() -> None:
    curves = HEALTHY | {"code_entropy": np.array([0.5])}
    some = numbers([task(f"Task {each}", 0.8, random=0.5) for each in range(9)], curves)
    assert len(some) == 8
    assert all("good" in number.good for number in some)
    assert some[0].good == "good: above 50.0\u00a0%, the untrained network"


def test_a_score_that_nothing_stands_beside_is_no_number() -> None:
    assert numbers([task("Probe", 0.8)], {}) == []
