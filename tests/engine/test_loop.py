"""The loop: the order of a step, means over micro-batches and ranks, and no ruinous update."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from swav.data.batch import Batch
from swav.engine.divergence import NotFiniteError
from swav.engine.launch import launch
from swav.engine.loop import due, fit
from swav.engine.objective import Clock, Objective, StepOutput, TrainingFacts
from swav.engine.optim import LateLayers, OptimConfig
from swav.methods.swav import SwAV, SwAVConfig
from swav.nn.heads import HeadConfig

EMBED = 8


def clock_of(total_steps: int, *, steps_per_epoch: int = 2) -> Clock:
    return Clock(
        step=0, epoch=0, steps_per_epoch=steps_per_epoch, total_steps=total_steps, images=0
    )


def batches_of(num: int, *, batch: int = 6, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            (
                *torch.randn(2, batch, 3, 6, 6, generator=generator),
                torch.randn(batch, 3, 4, 4, generator=generator),
            ),
            2,
            torch.arange(batch),
        )
        for _ in range(num)
    ]


class Recorder(Objective):
    """A squared mean as loss; every call is noted."""

    def __init__(self, *, makes_targets: bool = False) -> None:
        super().__init__()
        self.network = nn.Linear(3, 1, bias=False)
        self.calls: list[tuple[str, int]] = []
        self.makes_targets = makes_targets
        self.given: list[object] = []
        self.gradients: list[Tensor] = []

    @property
    def encoder(self) -> nn.Module:
        return self.network

    def forward(self, batch: Batch, clock: Clock) -> StepOutput:
        self.calls.append(("forward", clock.step))
        self.given.append(batch.targets)
        value = self.network(batch.views[0].mean(dim=(2, 3)))
        return StepOutput((value - 1).square().mean(), {"first": batch.views[0].mean()})

    def with_targets(self, batches, clock: Clock):
        self.calls.append(("with_targets", clock.step))
        if not self.makes_targets:
            return batches
        return [
            batch._replace(targets=(torch.tensor(float(place)),))
            for place, batch in enumerate(batches)
        ]

    def before_epoch(self, clock: Clock) -> None:
        self.calls.append(("before_epoch", clock.step))

    def before_step(self, clock: Clock) -> None:
        self.calls.append(("before_step", clock.step))

    def after_backward(self, clock: Clock) -> None:
        self.calls.append(("after_backward", clock.step))
        self.gradients.append(self.network.weight.grad.clone())

    def after_step(self, clock: Clock) -> None:
        self.calls.append(("after_step", clock.step))


def sgd(objective: nn.Module, rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(objective.parameters(), lr=rate)


def test_hooks_and_clocks_in_order():
    objective = Recorder()
    done = list(fit(objective, batches_of(3), sgd(objective), clock_of(3)))
    assert [(clock.step, clock.epoch, clock.images) for clock, _ in done] == [
        (1, 0, 6),
        (2, 1, 12),
        (3, 1, 18),
    ]
    step = ("before_step", "forward", "after_backward", "after_step")
    expected = []
    for number in range(3):
        expected += [("before_epoch", number)] if number in (0, 2) else []
        expected += [(name, number) for name in step]
    assert objective.calls == expected


def test_the_caller_sees_every_step_before_the_next():
    objective = Recorder()
    steps = fit(objective, batches_of(3), sgd(objective), clock_of(3))
    next(steps)
    assert objective.calls[-1] == ("after_step", 0)


def test_a_run_goes_on_from_its_clock_and_ends_with_its_batches():
    objective = Recorder()
    start = clock_of(10).at(5, global_batch=6)
    done = list(fit(objective, batches_of(3), sgd(objective), start))
    assert [clock.step for clock, _ in done] == [6, 7, 8]
    assert list(fit(objective, batches_of(3), sgd(objective), start.at(10, global_batch=6))) == []


@pytest.mark.parametrize("makes_targets", [True, False])
def test_micro_batches_are_one_step(makes_targets):
    objective = Recorder(makes_targets=makes_targets)
    parts = batches_of(7, batch=2)
    start = objective.network.weight.detach().clone()
    losses = [objective(part, clock_of(1)) for part in parts[:3]]
    objective.calls.clear()
    objective.given.clear()
    done = list(fit(objective, parts, sgd(objective), clock_of(5), accumulate=3))
    assert [(clock.step, clock.images) for clock, _ in done] == [(1, 6), (2, 12)]  # no half step
    expected = [("before_epoch", 0), ("before_step", 0), ("with_targets", 0)]
    expected += [("forward", 0)] * 3 + [("after_backward", 0), ("after_step", 0)]
    assert objective.calls[:8] == expected
    given = [None if each is None else each[0].item() for each in objective.given[:3]]
    assert given == ([0, 1, 2] if makes_targets else [None] * 3)
    _, output = done[0]
    torch.testing.assert_close(output.loss, torch.stack([each.loss for each in losses]).mean())
    firsts = torch.stack([part.views[0].mean() for part in parts[:3]])
    torch.testing.assert_close(output.metrics["first"], firsts.mean())
    whole = torch.cat([part.views[0] for part in parts[:3]]).mean(dim=(2, 3))
    weight = start.requires_grad_()
    (F.linear(whole, weight) - 1).square().mean().backward()
    torch.testing.assert_close(objective.gradients[0], weight.grad)


def test_the_learning_rate_of_each_step_is_set():
    objective = Recorder()
    optimizer = sgd(objective)
    before = objective.network.weight.detach().clone()
    rates = []
    for clock, _ in fit(
        objective, batches_of(3), optimizer, clock_of(3), learning_rate=lambda now: now.step / 10
    ):
        rates.append(optimizer.param_groups[0]["lr"])
        if clock.step == 1:
            assert torch.equal(objective.network.weight, before)
    assert rates == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_late_layers_are_left_alone_until_their_step(name):
    """Then they learn as if the training began there: no decay, no momentum from before."""
    objective = Recorder()
    config = OptimConfig(optimizer=name, weight_decay=0.1, learning_rate=0.1)
    late = LateLayers(rates={"network.weight": 0.5}, from_step=2)
    optimizer = config.build(objective, late=late)
    before = objective.network.weight.detach().clone()
    rate = config.learning_rate_at
    for clock, _ in fit(objective, batches_of(4), optimizer, clock_of(4), learning_rate=rate):
        assert torch.equal(objective.network.weight, before) == (clock.step <= 2)
        assert bool(optimizer.state.get(objective.network.weight)) == (clock.step > 2)
    assert optimizer.param_groups[0]["lr"] == 0.5 * rate(clock_of(4).at(3, global_batch=6))


def test_the_gradient_is_clipped_to_a_global_norm():
    objective = Recorder()
    before = objective.network.weight.detach().clone()
    list(fit(objective, batches_of(1), sgd(objective, 1.0), clock_of(1), clip_norm=0.01))
    moved = before - objective.network.weight.detach()
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(F.cosine_similarity(moved, objective.gradients[0]), torch.ones(1))


def test_chance_depends_on_the_step_alone():
    class Noisy(Recorder):
        def forward(self, batch: Batch, clock: Clock) -> StepOutput:
            return StepOutput(super().forward(batch, clock).loss, {"noise": torch.rand(())})

    def noise(start: int) -> list[float]:
        objective = Noisy()
        clock = clock_of(4).at(start, global_batch=6)
        steps = fit(objective, batches_of(4), sgd(objective), clock, seed=7)
        return [output.metrics["noise"].item() for _, output in steps]

    assert noise(0)[2:] == noise(2)
    assert len(set(noise(0))) == 4


@pytest.mark.parametrize(
    ("step", "every", "expected"),
    [(10, 5, True), (11, 5, False), (100, 7, True), (100, 0, True), (10, 0, False)],
)
def test_due(step, every, expected):
    assert due(clock_of(100).at(step, global_batch=1), every) is expected


class Colours(nn.Module):
    """A backbone without BatchNorm: each picture alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3)
        self.num_features = 6

    def forward(self, pictures: Tensor) -> Tensor:
        return self.convolution(pictures).tanh().mean(dim=(2, 3))


def swav(**changes) -> SwAV:
    torch.manual_seed(0)
    config = {
        "num_prototypes": (5,),
        "head": HeadConfig(hidden_dim=7, embed_dim=EMBED, batchnorm=False),
        "freeze_steps": 1,
        "queue_length": 12,
        "queue_start_epoch": 0,
        **changes,
    }
    return SwAVConfig(**config).build(
        Colours(), TrainingFacts(feature_dim=6, num_images=100, global_batch=6)
    )


def spoiled(batch: Batch, value: float) -> Batch:
    first, *others = batch.views
    first = first.clone()
    first[0, 0, 0, 0] = value
    return batch._replace(views=(first, *others))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_stops_before_the_update(value, accumulate):
    objective = swav()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    good = batches_of(4 * accumulate, batch=6 // accumulate)
    good[-1] = spoiled(good[-1], value)
    steps = fit(objective, good, optimizer, clock_of(9), accumulate=accumulate)
    for _ in range(3):
        next(steps)
    objective.prototypes.normalise()  # what the next step begins with
    weights = {name: weight.clone() for name, weight in objective.named_parameters()}
    queue = objective.queue.get_extra_state()["rows"].clone()
    momenta = [
        optimizer.state[weight]["momentum_buffer"].clone() for weight in objective.parameters()
    ]
    with pytest.raises(NotFiniteError, match="step 3"):
        next(steps)
    for name, weight in objective.named_parameters():
        assert weight.isfinite().all()
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-7)
    assert torch.equal(objective.queue.get_extra_state()["rows"], queue)
    for weight, momentum in zip(objective.parameters(), momenta, strict=True):
        assert torch.equal(optimizer.state[weight]["momentum_buffer"], momentum)


class Cliff(Recorder):
    def forward(self, batch: Batch, clock: Clock) -> StepOutput:
        super().forward(batch, clock)
        value = self.network(batch.views[0].mean(dim=(2, 3))) * 0
        return StepOutput(value.square().sum().sqrt())


def test_a_gradient_that_is_not_finite_stops_before_the_update():
    objective = Cliff()
    before = objective.network.weight.detach().clone()
    with pytest.raises(NotFiniteError, match="gradient norm nan"):
        next(fit(objective, batches_of(1), sgd(objective), clock_of(1)))
    assert torch.equal(objective.network.weight, before)


def scaled_fabric(scale: float) -> tuple[Fabric, torch.amp.GradScaler]:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    return Fabric(accelerator="cpu", devices=1, plugins=[precision]), scaler


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_methods_see_views_and_codes_in_float32(precision):
    class Strict(Recorder):
        def forward(self, batch: Batch, clock: Clock) -> StepOutput:
            (codes,) = batch.targets
            assert {view.dtype for view in batch.views} == {codes.dtype} == {torch.float32}
            return super().forward(batch, clock)

    objective, fabric = Strict(makes_targets=True), launch(device="cpu", precision=precision)
    done = fit(objective, batches_of(2), sgd(objective), clock_of(1), accumulate=2, fabric=fabric)
    assert len(list(done)) == 1


@pytest.mark.parametrize("clip_norm", [None, 0.01])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_a_scaled_loss_gives_the_update_of_the_loss(optimizer, clip_norm):
    weights = []
    for scale in (None, 1024.0):
        objective = swav(freeze_steps=0)
        fabric = None if scale is None else scaled_fabric(scale)[0]
        optim = OptimConfig(optimizer=optimizer, learning_rate=0.01, batch_size=6).build(objective)
        list(fit(objective, batches_of(1), optim, clock_of(1), fabric=fabric, clip_norm=clip_norm))
        weights.append(parameters_to_vector(objective.parameters()).detach())
    start = parameters_to_vector(swav(freeze_steps=0).parameters()).detach()
    moved, expected = weights[1] - start, weights[0] - start
    assert F.cosine_similarity(moved, expected, dim=0) > 0.98
    assert moved.norm().item() == pytest.approx(expected.norm().item(), rel=0.05)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_overflow_costs_the_update_and_nothing_else(optimizer, clip_norm):
    objective, (fabric, scaler) = swav(queue_length=6), scaled_fabric(2.0**127)
    optim = OptimConfig(optimizer=optimizer, learning_rate=0.01, batch_size=6).build(objective)
    before = [weight.clone() for weight in objective.backbone.parameters()]
    steps = fit(objective, batches_of(1), optim, clock_of(1), fabric=fabric, clip_norm=clip_norm)
    ((clock, output),) = steps
    assert (clock.step, output.loss.isfinite().item()) == (1, True)
    assert scaler.get_scale() == 2.0**126
    weights = zip(objective.backbone.parameters(), before, strict=True)
    assert all(torch.equal(*pair) for pair in weights)
    assert objective.queue.is_full


def test_a_gradient_that_no_scale_makes_finite_stops_the_run():
    objective, (fabric, scaler) = Cliff(), scaled_fabric(2.0)
    steps = fit(objective, batches_of(9), sgd(objective), clock_of(9), fabric=fabric)
    with pytest.raises(NotFiniteError, match=r"(?s)step 2 .*float16 overflows"):
        list(steps)
    assert scaler.get_scale() == 0.5


def trained(share: list[Batch]) -> dict[str, object]:
    """Train SwAV on this rank's share; return all that should not depend on the ranks."""
    objective = swav(ema_momentum=0.9)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.5, momentum=0.9)
    fabric = launch(device="cpu", threads=1)
    done = list(fit(objective, share, optimizer, clock_of(len(share)), fabric=fabric))
    return {
        "images": [clock.images for clock, _ in done],
        "losses": torch.stack([output.loss for _, output in done]),
        "metrics": [dict(output.metrics) for _, output in done],
        "weights": {name: weight.detach() for name, weight in objective.named_parameters()},
        "queue": sorted(objective.queue.get_extra_state()["rows"][1].tolist()),
    }


@pytest.mark.ranks
def test_two_ranks_train_as_one(run_on_ranks):
    whole = batches_of(5)
    halves = [
        [
            Batch(tuple(view[rows] for view in batch.views), 2, batch.indices[rows])
            for batch in whole
        ]
        for rows in (slice(0, 3), slice(3, 6))
    ]
    one = trained(whole)
    for two in run_on_ranks(2, trained, halves):
        assert two["images"] == one["images"]
        torch.testing.assert_close(two["losses"], one["losses"], rtol=0, atol=1e-5)
        for name, weight in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=1e-5)
        for found, expected in zip(two["metrics"], one["metrics"], strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            torch.tensor(two["queue"]), torch.tensor(one["queue"]), rtol=0, atol=1e-4
        )


def stopped(share: list[Batch]) -> str:
    objective = swav()
    before = [weight.detach().clone() for weight in objective.backbone.parameters()]
    try:
        list(
            fit(
                objective,
                share,
                sgd(objective),
                clock_of(1),
                fabric=launch(device="cpu", threads=1),
            )
        )
    except NotFiniteError as error:
        weights = zip(objective.backbone.parameters(), before, strict=True)
        assert all(torch.equal(*pair) for pair in weights)
        return str(error)
    return "went on"


@pytest.mark.ranks
def test_all_ranks_stop_at_the_same_step(run_on_ranks):
    (good,) = batches_of(1)
    for answer in run_on_ranks(2, stopped, [[good], [spoiled(good, math.nan)]]):
        assert answer.startswith("step 0 (epoch 0): the loss is nan")
