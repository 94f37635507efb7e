"""Every number of a training has a range, which is checked when the config is made."""

import math
from typing import Any

import pytest
from tiny import TINY_METHODS, tiny_config

from swav.config import UsageError, check_ranges, flatten, to_dict, with_values
from swav.engine.optim import OptimConfig
from swav.evals.selection import TASKS
from swav.methods import MethodConfig, SwAVConfig
from swav.ops.assign import Prior

OUTSIDE, SAID = -(10**30), rf"{-(10**30)}|-1e\+30"


def numbers(config: Any, kind: type) -> list[str]:
    values = flatten(to_dict(config))
    known = [path for path in values if not path.startswith("backbone.args.")]
    return [path for path in known if type(values[path]) is kind]


@pytest.mark.parametrize("method", TINY_METHODS.values(), ids=lambda method: method.name)
def test_no_number_of_a_training_may_be_anything(method: MethodConfig) -> None:
    made = tiny_config(method=method)
    paths = numbers(made, int)
    assert len(paths) > 10
    for path in paths:
        with pytest.raises(ValueError, match=SAID):
            with_values(made, {path: OUTSIDE})
    for path in numbers(made, float):
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match=str(value)):
                with_values(made, {path: value})


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_no_number_of_an_evaluation_may_be_anything(task: Any) -> None:
    made = task()
    for path in numbers(made, int):
        with pytest.raises(ValueError, match=SAID):
            with_values(made, {path: OUTSIDE})
    for path in numbers(made, float):
        with pytest.raises(ValueError, match="nan"):
            with_values(made, {path: math.nan})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OptimConfig(weight_decay=math.nan), r"weight_decay nan .* in \[0, inf\); .*1e-06"),
        (lambda: OptimConfig(weight_decay=-1.0), r"weight_decay -1\.0 .* in \[0, inf\)"),
        (lambda: OptimConfig(learning_rate=math.inf), r"learning_rate inf .* in \(0, inf\)"),
        (lambda: OptimConfig(clip_norm=math.nan), r"clip_norm nan is not among the numbers"),
        (lambda: OptimConfig(clip_norm=0.0), r"clip_norm 0\.0"),
        (lambda: OptimConfig(momentum=1.5), r"momentum 1\.5 .* in \[0, 1\); the default is 0\.9"),
        (lambda: SwAVConfig(queue_start_epoch=-1), r"queue_start_epoch -1 .* the default is auto"),
        (lambda: SwAVConfig(queue_length=-3), r"queue_length -3 is not among the whole numbers"),
        (lambda: SwAVConfig(iterations=10**9), r"iterations 1000000000 .* \[0, 1000\].* is 3"),
        (lambda: SwAVConfig(ema_momentum=math.nan), "ema_momentum nan"),
        (lambda: Prior(strength=math.inf), "strength inf"),
        (lambda: tiny_config(save_every=-1), r"save_every -1 .* in \[0, inf\); the default is 0"),
        (lambda: tiny_config(workers=-5), r"workers -5"),
        (lambda: tiny_config(threads=10**6), r"threads 1000000 .* \[0, 1024\]"),
        (lambda: tiny_config(seed=-1), "seed -1"),
    ],
)
def test_value_range_and_default_are_named(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_the_ends_of_a_range() -> None:
    for momentum in (0.0, 0.999):
        assert OptimConfig(momentum=momentum).momentum == momentum
    with pytest.raises(UsageError):
        OptimConfig(momentum=1.0)
    check_ranges(SwAVConfig(), queue_start_epoch="[5, 6)")  # a word lies nowhere and is no number
