"""The clock, and an objective that asks for nothing but a loss."""

import torch
from torch import Tensor, nn

from swav.data.batch import Batch
from swav.engine.objective import Clock, Objective, StepOutput


def test_the_clock_of_a_later_step():
    clock = Clock(step=0, epoch=0, steps_per_epoch=7, total_steps=100, images=0, warmup_steps=3)
    later = clock.at(20, global_batch=32)
    assert (later.step, later.epoch, later.images) == (20, 2, 640)
    assert (later.steps_per_epoch, later.total_steps, later.warmup_steps) == (7, 100, 3)
    assert clock.at(6, global_batch=32).epoch == 0
    assert clock.at(7, global_batch=32).epoch == 1


class Smallest(Objective):
    """Nothing but what is abstract."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(3, 2)

    @property
    def encoder(self) -> nn.Module:
        return self.network

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        return StepOutput(self.network(batch.views[0].mean(dim=(2, 3))).square().mean())


def test_every_other_hook_does_nothing():
    objective = Smallest()
    before = [weight.detach().clone() for weight in objective.parameters()]
    clock = Clock(step=0, epoch=0, steps_per_epoch=1, total_steps=1, images=0)
    batch = Batch((torch.randn(2, 3, 4, 4),), 1, torch.arange(2))
    objective.prepare([batch])
    objective.before_epoch(clock)
    objective.before_step(clock)
    objective.after_backward(clock)
    objective.after_step(clock)
    assert objective.with_targets([batch], clock) == [batch]
    assert objective.cluster(torch.randn(2, 3)) is None
    output = objective(batch, clock)
    assert isinstance(output.loss, Tensor)
    assert dict(output.metrics) == {}
    for weight, value in zip(objective.parameters(), before, strict=True):
        assert torch.equal(weight, value)
