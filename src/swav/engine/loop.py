"""The loop: optimiser steps over micro-batches, as a generator that the caller walks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from swav import distributed
from swav.data.batch import AnyBatch
from swav.engine.divergence import check_finite
from swav.engine.launch import loss_scaler
from swav.engine.objective import Clock, Objective, StepOutput

if TYPE_CHECKING:  # slow to import, and a config needs none
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule


def fit(
    objective: Objective,
    batches: Iterable[AnyBatch],
    optimizer: torch.optim.Optimizer,
    clock: Clock,
    *,
    learning_rate: Callable[[Clock], float] | None = None,
    fabric: "Fabric | None" = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    seed: int = 0,
) -> Iterator[tuple[Clock, StepOutput]]:
    """Train from ``clock`` to its ``total_steps``; yield the new clock after every step.

    Periodic work is an ``if`` in the caller's ``for``. ``batches`` yields the micro-batches of
    this rank from ``clock.step`` on, ``accumulate`` of them for each optimiser step. The yielded
    loss and metrics are means over micro-batches and ranks.

    Raises:
        NotFiniteError: on all ranks at once, before an update that would ruin the weights.
        ValueError: for several micro-batches where the loss needs the whole batch.
    """
    check_accumulation(accumulate, objective.needs_whole_batch)
    from lightning_fabric import Fabric

    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    wrapped, wrapped_optimizer = fabric.setup(_Sealed(objective), optimizer)
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    scaler = loss_scaler(fabric)
    objective.train()
    incoming = iter(batches)
    while clock.step < clock.total_steps:
        micro_batches = [fabric.to_device(batch) for batch in islice(incoming, accumulate)]
        if len(micro_batches) < accumulate:
            return
        # by the step, not by the data: a run resumed at the first step of an epoch does it too
        if clock.step % clock.steps_per_epoch == 0:
            objective.before_epoch(clock)
        if learning_rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(clock) * group.get("rate", 1.0)
        torch.manual_seed(seed + clock.step)  # dropout too depends on the step alone
        objective.before_step(clock)
        output = _forward_backward(fabric, wrapped, objective, micro_batches, clock)
        objective.after_backward(clock)
        _drop_early_gradients(optimizer, clock)
        # before the check and the clipping: both are about the true gradient
        if scaler is not None:
            scaler.unscale_(optimizer)
        # after all ranks agreed on the loss, before the update: weights stay finite
        _check_finite(fabric, objective, output, clock)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        # where float16 overflowed the scaler leaves this update out, as if the learning rate were
        # 0; the pass forward was sound, so its embeddings count for queues, banks and teachers
        wrapped_optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.after_step(clock)
        num_images = sum(len(batch.indices) for batch in micro_batches) * distributed.world_size()
        clock = clock.at(clock.step + 1, global_batch=num_images)
        yield clock, output


def check_accumulation(accumulate: int, needs_whole_batch: str) -> None:
    """Raise a ValueError if a loss over all pairs of a batch should be added up in parts."""
    if accumulate > 1 and needs_whole_batch:
        raise ValueError(
            f"accumulate {accumulate}: {needs_whole_batch}. Use --optim.accumulate 1, with more "
            "ranks or a smaller --optim.batch-size if memory is short"
        )


def due(clock: Clock, every_steps: int) -> bool:
    """Return whether periodic work is due: each ``every_steps`` and after the last step."""
    if clock.step == clock.total_steps:
        return True
    return every_steps > 0 and clock.step % every_steps == 0


class _Sealed(nn.Module):
    """The objective, with arguments that Fabric does not look into.

    It would round them to half precision, the codes of an accumulated step too, and fail at a
    frozen clock. As they are, autocast chooses the precision of each operation.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, arguments: Callable[[], tuple[Any, ...]]) -> StepOutput:
        output: StepOutput = self.objective(*arguments())
        return output


def _forward_backward(
    fabric: "Fabric",
    wrapped: "_FabricModule",
    objective: Objective,
    micro_batches: Sequence[AnyBatch],
    clock: Clock,
) -> StepOutput:
    """Add up the gradients of all micro-batches; return their mean loss and metrics."""
    if len(micro_batches) > 1:
        # targets are computed outside of the wrapped module, which brings the autocast otherwise
        with fabric.autocast():
            micro_batches = objective.with_targets(micro_batches, clock)
    outputs: list[StepOutput] = []
    for number, batch in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        # ranks add up their gradients once, at the last micro-batch
        with fabric.no_backward_sync(wrapped, enabled=not is_last):
            output: StepOutput = wrapped(lambda batch=batch: (batch, clock))
            # micro-batches are of equal size, so the mean of means is the mean
            fabric.backward(output.loss / len(micro_batches))
        outputs.append(output)
    return _mean(outputs)


def _mean(outputs: Sequence[StepOutput]) -> StepOutput:
    """Return the mean over micro-batches and ranks."""
    names = list(outputs[0].metrics)
    rows = [
        torch.stack([output.loss.detach().cpu(), *(output.metrics[name] for name in names)])
        for output in outputs
    ]
    # on the CPU and in one piece: one collective a step, whatever the number of metrics
    loss, *metrics = distributed.all_reduce_mean(torch.stack(rows).mean(dim=0)).unbind()
    return StepOutput(loss, dict(zip(names, metrics, strict=True)))


def _check_finite(fabric: "Fabric", objective: Objective, output: StepOutput, clock: Clock) -> None:
    scaler = loss_scaler(fabric)
    may_recover = scaler is not None and scaler.get_scale() >= 1  # it is halved by each overflow
    check_finite(
        clock,
        loss=output.loss.item(),
        metrics=output.metrics,
        grad_norm=None if may_recover else _gradient_norm(objective),
        precision=fabric.strategy.precision.precision,
        weights=objective.parameters(),
    )


def _drop_early_gradients(optimizer: torch.optim.Optimizer, clock: Clock) -> None:
    """Leave parameters alone until the step from which on they learn."""
    for group in optimizer.param_groups:
        if clock.step < group.get("from_step", 0):
            for weight in group["params"]:
                weight.grad = None  # not zero: decay and moments would begin


def _gradient_norm(objective: Objective) -> float:
    gradients: list[Tensor] = [p.grad for p in objective.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item()
