"""Optimisers and schedule against transcriptions of the published ones."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from swav.engine.objective import Clock
from swav.engine.optim import LateLayers, OptimConfig


def published_schedule(config: OptimConfig, warmup: int, total: int) -> np.ndarray:
    rising = np.linspace(config.start_learning_rate, config.learning_rate, warmup)
    steps = np.arange(total - warmup)
    final, height = config.final_learning_rate, config.learning_rate
    falling = final + 0.5 * (height - final) * (1 + np.cos(math.pi * steps / (total - warmup)))
    return np.concatenate([rising, falling])


@pytest.mark.parametrize("warmup", [0, 1, 2, 30])
def test_the_schedule_of_the_reference(warmup):
    config = OptimConfig(learning_rate=4.8, start_learning_rate=0.3, final_learning_rate=0.0048)
    clock = Clock(
        step=0, epoch=0, steps_per_epoch=10, total_steps=100, images=0, warmup_steps=warmup
    )
    rates = [config.learning_rate_at(clock.at(step, global_batch=1)) for step in range(100)]
    np.testing.assert_allclose(rates, published_schedule(config, warmup, 100), rtol=1e-12)
    assert rates[warmup] == 4.8
    assert min(rates[warmup:]) > 0.0048


def larc(weights, gradients, momenta, *, rate, decay, momentum, trust=1e-3, tiny=1e-8):
    """One step of apex's LARC around SGD, tensor by tensor, biases too."""
    for name, weight in weights.items():
        gradient = gradients[name]
        length, slope = np.linalg.norm(weight), np.linalg.norm(gradient)
        if length != 0 and slope != 0:
            local = trust * length / (slope + decay * length + tiny)
            gradient = (gradient + decay * weight) * local
        if name in momenta:
            momenta[name] = momentum * momenta[name] + gradient
        else:
            momenta[name] = gradient
        weights[name] = weight - rate * momenta[name]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 3))
        self.bias = nn.Parameter(torch.zeros(4))
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def gradients_of(network: Network, step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        name: torch.randn(weight.shape, generator=generator)
        for name, weight in network.named_parameters()
        if weight.requires_grad
    }


@pytest.mark.parametrize("weight_decay", [0.0, 1e-6, 0.1])
def test_lars_is_the_larc_of_the_reference(weight_decay):
    torch.manual_seed(0)
    network = Network()
    optimizer = OptimConfig(learning_rate=0.6, weight_decay=weight_decay).build(network)
    start = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    weights = {name: start[name].double().numpy() for name in ("matrix", "bias", "scale")}
    momenta = {}
    for step in range(5):
        rate = 0.6 / (step + 1)
        gradients = gradients_of(network, step)
        for name, weight in network.named_parameters():
            weight.grad = gradients.get(name)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        larc(
            weights,
            {name: gradient.double().numpy() for name, gradient in gradients.items()},
            momenta,
            rate=rate,
            decay=weight_decay,
            momentum=0.9,
        )
        for name, expected in weights.items():
            found = dict(network.named_parameters())[name].detach()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(network.frozen, start["frozen"])


def test_a_parameter_of_length_zero_takes_one_raw_step():
    network = Network()
    optimizer = OptimConfig(learning_rate=0.6, weight_decay=0.1).build(network)
    network.bias.grad = torch.tensor([1.0, -2.0, 0.5, 0.0])
    optimizer.step()
    torch.testing.assert_close(network.bias.detach(), -0.6 * network.bias.grad)


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_no_gradient_means_no_step_no_decay_no_momentum(name):
    network = Network()
    optimizer = OptimConfig(optimizer=name, weight_decay=0.1).build(network)
    for step in range(3):
        before = network.matrix.detach().clone()
        for each, weight in network.named_parameters():
            weight.grad = gradients_of(network, step).get(each)
        network.matrix.grad = None
        optimizer.step()
        assert torch.equal(network.matrix, before)
    assert network.matrix not in optimizer.state or not optimizer.state[network.matrix]
    fresh = Network()
    fresh.load_state_dict(network.state_dict())
    late = OptimConfig(optimizer=name, weight_decay=0.1).build(fresh)
    network.matrix.grad = torch.ones(4, 3)
    fresh.matrix.grad = torch.ones(4, 3)
    optimizer.step()
    late.step()
    assert torch.equal(network.matrix, fresh.matrix)


def test_sgd_decays_everything():
    network = Network()
    with torch.no_grad():
        network.bias.fill_(2.0)
    config = OptimConfig(optimizer="sgd", learning_rate=0.5, weight_decay=0.1)
    optimizer = config.build(network)
    network.bias.grad = torch.ones(4)
    optimizer.step()
    torch.testing.assert_close(network.bias.detach(), torch.full((4,), 2 - 0.5 * (1 + 0.1 * 2)))
    network.bias.grad = torch.zeros(4)
    before = network.bias.detach().clone()
    optimizer.step()
    moved = before - 0.5 * (0.9 * (1 + 0.1 * 2) + 0.1 * before)
    torch.testing.assert_close(network.bias.detach(), moved)


def test_adamw_decays_matrices_alone():
    network = Network()
    config = OptimConfig(optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
    optimizer = config.build(network)
    matrix, scale = network.matrix.detach().clone(), network.scale.detach().clone()
    network.matrix.grad, network.scale.grad = torch.zeros(4, 3), torch.zeros(1)
    optimizer.step()
    torch.testing.assert_close(network.matrix.detach(), matrix * (1 - 0.01 * 0.1))
    assert torch.equal(network.scale, scale)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 1}, "batch_size 1 must be at least 2"),
        ({"batch_size": 10, "accumulate": 3}, "multiple of accumulate 3"),
        ({"accumulate": 0}, "multiple of accumulate 0"),
        ({"layer_decay": 0.0}, r"layer_decay 0\.0 is not among the numbers in"),
        ({"layer_decay": 1.5}, r"layer_decay 1\.5 is not among the numbers in"),
        ({"learning_rate": 0.0}, r"learning_rate 0\.0 must be positive"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**wrong)


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_a_part_may_have_a_rate_of_its_own(name):
    torch.manual_seed(0)
    network = nn.ModuleDict({"near": nn.Linear(3, 2), "far": nn.Linear(3, 2)})
    network["far"].load_state_dict(network["near"].state_dict())
    start = network["near"].weight.detach().clone()
    config = OptimConfig(optimizer=name, learning_rate=0.01, weight_decay=0.1)
    optimizer = config.build(network, {"far": 5.0})
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.01, 0.05]
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    moved = {part: layer.weight.detach() - start for part, layer in network.items()}
    torch.testing.assert_close(moved["far"], 5 * moved["near"])
    assert config.build(network).param_groups[0]["rate"] == 1


def test_rates_of_layers_and_of_parts_multiply():
    network = nn.ModuleDict({"near": nn.Linear(3, 2), "far": nn.Linear(3, 2)})
    late = LateLayers(rates={"far.weight": 0.5, "near.weight": 0.25}, from_step=7)
    optimizer = OptimConfig(optimizer="sgd", learning_rate=1.0).build(network, {"far": 4.0}, late)
    found = {
        id(weight): (group["lr"], group["rate"], group["from_step"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    expected = {
        "near.weight": (0.25, 0.25, 7),
        "near.bias": (1.0, 1.0, 0),
        "far.weight": (2.0, 2.0, 7),
        "far.bias": (4.0, 4.0, 0),
    }
    for name, weight in network.named_parameters():
        assert found[id(weight)] == expected[name]


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_decay_can_spare_biases_and_normalisation_layers(name):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    config = OptimConfig(optimizer=name, weight_decay=0.1, decay_vectors=False)
    for group in config.build(network).param_groups:
        for weight in group["params"]:
            assert group["weight_decay"] == (0.1 if weight.ndim > 1 else 0.0)
