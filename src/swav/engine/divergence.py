"""Watch a run for what ruins it: numbers that are not finite, and collapse."""

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from swav.engine.objective import Clock

PATIENCE = 0.1
"""Share of the run in which nothing is called a collapse: a healthy loss starts near ln K too."""
SHARPER_CODES, FEWER_PROTOTYPES = "half the --method.epsilon", "half the --method.num-prototypes"
"""What helped runs that had collapsed, for configs to name as their ``collapse_remedies``."""


class NotFiniteError(RuntimeError):
    """The loss or the gradient is NaN or infinite; the update was not made."""


def check_finite(
    clock: Clock,
    *,
    loss: float,
    metrics: Mapping[str, float | Tensor],
    grad_norm: float | None = None,
    precision: str = "32-true",
    weights: Iterable[Tensor] = (),
) -> None:
    """Let a step pass only if its loss, and its gradient norm if given, are finite.

    Call it before the optimiser, with the loss of all ranks together, so that all of them stop at
    the same step. Leave the gradient out where a loss scaler deals with it (``16-mixed``).

    ``weights`` are looked at only to say whether an earlier update has spoilt them.

    Raises:
        NotFiniteError: naming the step, the numbers, the likely cause and what to do.
    """
    if math.isfinite(loss) and (grad_norm is None or math.isfinite(grad_norm)):
        return
    values = {name: float(value) for name, value in metrics.items()}
    gradient = "" if grad_norm is None else f", its gradient norm {grad_norm:g}"
    listed = ", ".join(f"{name} {value:g}" for name, value in values.items())
    raise NotFiniteError(
        f"step {clock.step} (epoch {clock.epoch}): the loss is {loss:g}{gradient}; stopped before "
        f"the update, {_state_of(weights)}"
        + (f". Metrics of this step: {listed}" if listed else "")
        + ".\n"
        + _advice(clock, loss=loss, values=values, precision=precision)
        + "\nContinue from the last checkpoint with --resume; the steps are the same again, so if "
        "the cause is an option, start a new run (--init RUN keeps the weights)."
    )


def _state_of(weights: Iterable[Tensor]) -> str:
    if all(bool(weight.isfinite().all()) for weight in weights):
        return "so the weights are still finite"
    return "but an earlier one has made weights infinite or NaN: what is saved since is of no use"


def _advice(clock: Clock, *, loss: float, values: Mapping[str, float], precision: str) -> str:
    # first, as an overflow also looks like every cause below
    if precision == "16-mixed":
        return "Likely cause: float16 overflows above 65504. Try --precision bf16-mixed or 32-true."
    if math.isfinite(loss):
        return (
            "Likely cause: the gradient exploded although the loss is finite. Try "
            "--optim.clip-norm 1, or a lower --optim.learning-rate."
        )
    if not all(math.isfinite(value) for name, value in values.items() if name != "loss"):
        return (
            "Likely cause: the network's outputs, or the codes made from them, are not finite: "
            "weights that have grown too far, or arrays that hold NaN. Try half the "
            "--optim.learning-rate, and check the data if it comes as arrays."
        )
    if clock.step <= max(clock.warmup_steps, PATIENCE * clock.total_steps):
        return (
            "Likely cause: the learning rate rises too high, too early. Try half the "
            "--optim.learning-rate, more --optim.warmup-epochs, or --optim.clip-norm 1."
        )
    return (
        "Likely cause: the run is unstable. Try half the --optim.learning-rate, "
        "--optim.clip-norm 1, or --precision 32-true if it is not."
    )


def collapse(
    clock: Clock,
    *,
    loss: float,
    ln_k: float,
    prototypes_used: float,
    remedies: Sequence[str] = (),
) -> str | None:
    """Return a sentence that warns of a collapse, or None while all is well.

    ``prototypes_used`` is the fraction chosen by any picture of about one epoch: a small batch
    cannot use them all. Nothing is said in the first tenth of the run. ``remedies`` are the
    method's own.
    """
    if clock.step <= max(clock.warmup_steps, PATIENCE * clock.total_steps):
        return None
    # pictures that differ by little but brightness collapsed under colour jitter, and without it
    # fell from 2.997 to 2.343 in 60 steps (docs/log.md, blood cells)
    remedy = (
        f"{', '.join([*remedies, 'half the --optim.learning-rate'])} or, for pictures that look "
        "alike, views that leave more in common: --views.augment.jitter 0 --views.augment.grey 0"
    )
    # 1 %: collapsed runs stayed at 2.997 to 3.001 of ln K = 2.996 (docs/log.md)
    if abs(loss - ln_k) <= 0.01 * ln_k:
        return (
            f"step {clock.step}: the loss {loss:.4f} is still within 1 % of ln K = {ln_k:.4f}, "
            f"which is what guessing gives: the run has probably collapsed. Try {remedy}."
        )
    if prototypes_used < 0.1:
        return (
            f"step {clock.step}: only {prototypes_used:.1%} of the prototypes are in use: the "
            f"codes are collapsing onto a few of them. Try {remedy}."
        )
    return None
