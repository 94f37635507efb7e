"""The watch stops what is not finite, and warns of a collapse neither too early nor too late."""

import math
from dataclasses import replace

import pytest
import torch

from swav.engine.divergence import NotFiniteError, check_finite, collapse
from swav.engine.objective import Clock, ObjectiveConfig
from swav.methods import DeepClusterConfig, SeLaConfig, SwAVConfig

CLOCK = Clock(step=500, epoch=5, steps_per_epoch=100, total_steps=1000, images=32_000)
LN_K = math.log(300)


@pytest.mark.parametrize("loss", [0.0, -3.0, 1e30])
def test_finite_numbers_pass(loss: float) -> None:
    check_finite(CLOCK, loss=loss, metrics={"code_entropy": torch.tensor(0.4)}, grad_norm=1e20)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_the_message_has_step_loss_metrics_and_a_remedy(loss: float) -> None:
    with pytest.raises(NotFiniteError) as error:
        check_finite(CLOCK, loss=loss, metrics={"code_entropy": torch.tensor(0.25)})
    expected = ("step 500 (epoch 5)", f"loss is {loss}", "code_entropy 0.25", "Try", "--resume")
    for part in expected:
        assert part in str(error.value)


def test_weights_that_an_earlier_update_spoilt_are_not_called_finite() -> None:
    sound, spoilt = torch.zeros(3), torch.tensor([0.0, math.inf])
    with pytest.raises(NotFiniteError, match="so the weights are still finite"):
        check_finite(CLOCK, loss=math.nan, metrics={}, weights=[sound])
    with pytest.raises(NotFiniteError, match="an earlier one has made weights infinite or NaN"):
        check_finite(CLOCK, loss=math.nan, metrics={}, weights=[sound, spoilt])


@pytest.mark.parametrize(
    ("step", "loss", "metrics", "grad_norm", "precision", "cause"),
    [
        (500, math.nan, {"code_entropy": 0.3}, None, "16-mixed", "float16 overflows"),
        (500, 2.0, {"code_entropy": 0.3}, math.inf, "32-true", "gradient exploded"),
        (500, math.nan, {"code_entropy": math.nan}, None, "32-true", "codes made from them"),
        (50, math.nan, {"code_entropy": 0.3}, None, "32-true", "too high, too early"),
        (500, math.nan, {"code_entropy": 0.3}, None, "32-true", "unstable"),
    ],
)
def test_the_likely_cause(
    step: int,
    loss: float,
    metrics: dict[str, float],
    grad_norm: float | None,
    precision: str,
    cause: str,
) -> None:
    with pytest.raises(NotFiniteError, match=cause):
        check_finite(
            replace(CLOCK, step=step),
            loss=loss,
            metrics=metrics,
            grad_norm=grad_norm,
            precision=precision,
        )


@pytest.mark.parametrize(
    ("step", "loss", "used", "warning"),
    [
        (500, LN_K, 1.0, "within 1 % of ln K"),
        (101, LN_K * 0.991, 1.0, "within 1 % of ln K"),
        (1000, LN_K * 1.009, 1.0, "within 1 % of ln K"),
        (500, LN_K * 0.98, 1.0, None),
        (500, 2.0, 0.09, "only 9.0% of the prototypes"),
        (500, 2.0, 0.1, None),
        (500, LN_K, 0.01, "within 1 % of ln K"),
        (100, LN_K, 0.0, None),
        (0, LN_K, 0.0, None),
    ],
)
def test_collapse(step: int, loss: float, used: float, warning: str | None) -> None:
    found = collapse(replace(CLOCK, step=step), loss=loss, ln_k=LN_K, prototypes_used=used)
    if warning is None:
        assert found is None
    else:
        assert found is not None
        assert warning in found
        assert f"step {step}" in found


@pytest.mark.parametrize("method", [SwAVConfig, SeLaConfig, DeepClusterConfig])
def test_remedies_are_options_that_the_method_has(method: type[ObjectiveConfig]) -> None:
    warning = collapse(
        replace(CLOCK, step=500),
        loss=2.0,
        ln_k=LN_K,
        prototypes_used=0.0,
        remedies=method.collapse_remedies,
    )
    assert warning is not None
    assert "half the --method.num-prototypes, half the --optim.learning-rate or, for" in warning
    assert ("--method.epsilon" in warning) is (method is not DeepClusterConfig)


def test_a_long_warm_up_is_waited_for() -> None:
    clock = replace(CLOCK, warmup_steps=600)
    assert collapse(clock, loss=LN_K, ln_k=LN_K, prototypes_used=0.0) is None
    assert collapse(replace(clock, step=601), loss=LN_K, ln_k=LN_K, prototypes_used=0.0)


def test_a_healthy_run_is_never_warned_of() -> None:
    for step in range(1001):
        loss = LN_K * (0.7 + 0.3 * math.exp(-step / 20))
        used = min(1.0, 0.02 + step / 100)
        assert not collapse(replace(CLOCK, step=step), loss=loss, ln_k=LN_K, prototypes_used=used)
