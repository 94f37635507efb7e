"""What every method owes: gradients, determinism, any views, a config that comes back."""

from dataclasses import replace

import pytest
import torch
from tiny import (
    BATCH_SIZE,
    METHOD_CLASSES,
    TINY_METHODS,
    WITH_BATCHNORM,
    WITHOUT_BATCHNORM,
    tiny_config,
    tiny_facts,
    tiny_pictures,
)
from torch import Tensor

from swav import config
from swav.data.batch import Batch
from swav.data.loader import StepViews
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine import Clock, Objective, fit
from swav.engine.launch import launch
from swav.methods import MethodConfig, SwAVConfig
from swav.nn.backbones import BackboneConfig
from swav.run_folder.state import flatten

CLOCK = Clock(step=4, epoch=1, steps_per_epoch=4, total_steps=20, images=64)
"""After the prototypes have thawed."""

every_method = pytest.mark.parametrize(
    "method",
    [TINY_METHODS[cls] for cls in METHOD_CLASSES],
    ids=[cls.name for cls in METHOD_CLASSES],
)


def build(
    method: MethodConfig,
    backbone: BackboneConfig = WITHOUT_BATCHNORM,
    views: ViewsConfig | None = None,
) -> Objective:
    """Return a method before its first step: its memory, if it has one, is filled."""
    torch.manual_seed(0)
    network = backbone.build(3)
    objective = method.build(network, tiny_facts(network))
    objective.prepare(batches(method, views).batch(number) for number in range(4))
    objective.before_epoch(CLOCK)
    return objective


def batches(
    method: MethodConfig, views: ViewsConfig | None = None, *, accumulate: int = 1
) -> StepViews:
    return StepViews(
        tiny_pictures(),
        tiny_config(method=method).views if views is None else views,
        global_batch=BATCH_SIZE,
        accumulate=accumulate,
        pretext=method.pretext,
    )


def step(objective: Objective, batch: Batch) -> Tensor:
    """Return the loss of one step up to the optimiser."""
    objective.train()
    objective.before_step(CLOCK)
    loss = objective(batch, CLOCK).loss
    loss.backward()
    objective.after_backward(CLOCK)
    return loss


@every_method
@pytest.mark.parametrize("backbone", [WITH_BATCHNORM, WITHOUT_BATCHNORM], ids=lambda b: b.name)
def test_every_trainable_parameter_gets_a_gradient(
    method: MethodConfig, backbone: BackboneConfig
) -> None:
    objective = build(method, backbone)
    assert step(objective, batches(method).batch(4)).isfinite()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


@every_method
def test_the_same_seed_gives_the_same_bits(method: MethodConfig) -> None:
    def train() -> tuple[list[Tensor], dict[str, Tensor]]:
        objective, data = build(method), batches(method)
        optimizer = tiny_config().optim.build(objective)
        clock = replace(CLOCK, step=0, epoch=0, images=0)
        steps = fit(objective, (data.batch(number) for number in range(6)), optimizer, clock)
        losses = [output.loss for _, output in steps]
        return losses, dict(objective.named_parameters())

    (losses, weights), (losses_again, weights_again) = train(), train()
    assert torch.equal(torch.stack(losses), torch.stack(losses_again))
    assert len(losses) == 6
    for name, weight in weights.items():
        assert torch.equal(weight, weights_again[name]), name


@every_method
@pytest.mark.parametrize("num_targets", [1, 2, 3])
@pytest.mark.parametrize("num_small", [0, 1, 4])
def test_any_number_of_target_and_small_views(
    method: MethodConfig, num_targets: int, num_small: int
) -> None:
    if num_targets + num_small < method.min_views:
        pytest.skip("one view has nothing to be compared with")
    large = CropGroup(count=num_targets, size=(20, 16), scale=(0.3, 1.0))
    small = CropGroup(count=max(num_small, 1), size=(16, 16), scale=(0.1, 0.4))
    views = ViewsConfig(groups=(large, small) if num_small else (large,))
    batch = batches(method, views).batch(4)
    if method.pretext is None:
        assert (len(batch.views), batch.num_targets) == (num_targets + num_small, num_targets)
    assert step(build(method, views=views), batch).isfinite()


@every_method
def test_the_config_comes_back(method: MethodConfig) -> None:
    whole = tiny_config(method=method)
    assert config.from_dict(type(whole), config.to_dict(whole)) == whole


@every_method
def test_its_config_says_what_it_is(method: MethodConfig) -> None:
    assert method.title
    features = torch.randn(3, 16)
    has_clusters = build(method).eval().cluster(features) is not None
    assert method.has_clusters == has_clusters
    for remedy in method.collapse_remedies:
        option = remedy.split("--method.")[1].split()[0].replace("-", "_")
        assert option in config.to_dict(method)


@every_method
def test_training_leaves_the_batch_as_it_was(method: MethodConfig) -> None:
    batch, same = batches(method).batch(4), batches(method).batch(4)
    step(build(method), batch)
    for view, before in zip(batch.views, same.views, strict=True):
        assert torch.equal(view, before)


@every_method
def test_two_steps_in_mixed_precision_are_those_in_single(method: MethodConfig) -> None:
    clock = replace(CLOCK, step=0, epoch=0, images=0, total_steps=2)

    def train(precision: str) -> Tensor:
        objective, data = build(method), batches(method)
        optimizer = tiny_config().optim.build(objective)
        before = {name: weight.clone() for name, weight in objective.named_parameters()}
        fabric = launch(device="cpu", precision=precision, threads=1)
        made = (data.batch(number) for number in range(2))
        outputs = [output for _, output in fit(objective, made, optimizer, clock, fabric=fabric)]
        for name, weight in objective.named_parameters():
            assert weight.dtype == torch.float32
            assert weight.isfinite().all(), name
            frozen = name.startswith("prototypes.")
            assert frozen or not weight.requires_grad or not torch.equal(weight, before[name]), name
        assert all(output.loss.dtype == torch.float32 for output in outputs)
        return torch.stack([output.loss for output in outputs])

    torch.testing.assert_close(train("bf16-mixed"), train("32-true"), rtol=0.02, atol=0)


@every_method
def test_losses_and_what_is_kept_are_float32_whatever_the_autocast(method: MethodConfig) -> None:
    objective = build(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective.before_step(CLOCK)
        assert objective(batches(method).batch(4), CLOCK).loss.dtype == torch.float32
        objective.after_step(CLOCK)
    kept = flatten(objective.state_dict(), torch.optim.SGD([torch.ones(1)]), [])
    halves = (torch.float16, torch.bfloat16)
    assert not [name for name, tensor in kept.items() if tensor.dtype in halves]


@every_method
def test_a_small_step_down_the_gradient_brings_the_loss_down(method: MethodConfig) -> None:
    """Of the same batch and state: banks, queues, teachers and clusters move between steps."""
    objective, batch = build(method), batches(method).batch(4)
    before = step(objective, batch)
    weights = [weight for weight in objective.parameters() if weight.grad is not None]
    slope = torch.stack([weight.grad.square().sum() for weight in weights]).sum()  # type: ignore
    with torch.no_grad():
        for weight in weights:
            assert weight.grad is not None
            weight -= 1e-3 * before / slope * weight.grad
    fall = ((before - objective(batch, CLOCK).loss) / (1e-3 * before)).item()
    assert fall == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("optimizer", ["lars", "adamw"])
def test_training_brings_the_loss_of_swav_down(optimizer: str) -> None:
    method = TINY_METHODS[SwAVConfig]
    objective, data = build(method), batches(method)
    height = {"lars": 1.0, "adamw": 2e-3}[optimizer]
    optim = replace(tiny_config().optim, optimizer=optimizer, learning_rate=height)
    clock = replace(CLOCK, step=0, epoch=0, images=0, total_steps=24)
    steps = fit(
        objective, (data.batch(number) for number in range(24)), optim.build(objective), clock
    )
    gaps = [float(output.loss - output.metrics.get("loss_floor", 0)) for _, output in steps]
    assert sum(gaps[-6:]) < sum(gaps[:6])


@every_method
def test_micro_batches_are_one_batch_or_refused(method: MethodConfig) -> None:
    clock = replace(CLOCK, step=0, epoch=0, images=0, total_steps=3)

    def train(accumulate: int) -> tuple[Tensor, dict[str, Tensor]]:
        objective = build(method)
        optimizer = torch.optim.SGD(
            [weight for weight in objective.parameters() if weight.requires_grad], lr=0.05
        )
        data = batches(method, accumulate=accumulate)
        micro_batches = (data.batch(number) for number in range(3 * accumulate))
        steps = fit(objective, micro_batches, optimizer, clock, accumulate=accumulate)
        losses = torch.stack([output.loss for _, output in steps])
        return losses, dict(objective.named_parameters())

    if method.needs_whole_batch:
        with pytest.raises(ValueError, match=rf"accumulate 2: {method.needs_whole_batch}"):
            train(2)
        return
    (losses, weights), (losses_there, weights_there) = train(1), train(2)
    torch.testing.assert_close(losses_there, losses, atol=1e-5, rtol=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weights_there[name], weight, atol=1e-5, rtol=1e-4)


def test_every_method_is_tested() -> None:
    assert set(TINY_METHODS) == set(METHOD_CLASSES)


def test_labels_are_not_in_a_batch() -> None:
    pictures = tiny_pictures()
    assert pictures.labels is not None
    batch = batches(TINY_METHODS[SwAVConfig]).batch(0)
    assert batch._fields == ("views", "num_targets", "indices", "pretext", "targets")
    assert batch.pretext is None
    assert batch.targets is None
    labels = torch.from_numpy(pictures.labels)[batch.indices]
    assert not any(torch.equal(tensor, labels) for tensor in (batch.indices, *batch.views))
