"""Layers of networks: their order, what is frozen of them, and their learning rates."""

import copy

import pytest
import timm
import torch
from torch import nn

from swav.nn.batchnorm import batchnorms, keep_statistics, synchronise_statistics
from swav.nn.layer_groups import freeze_all_but, layer_rates, num_layers, parameter_layers

STAGES = {"resnet10t": 5, "tf_efficientnet_lite0": 8, "convnext_atto": 5, "test_vit": 7}


def network(name: str) -> nn.Module:
    made: nn.Module = timm.create_model(name, num_classes=0)
    return made


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_has_a_stage_and_the_last_one_the_end_of_the_network(name: str) -> None:
    made = network(name)
    stages = parameter_layers(made, stages=True)
    names = [name for name, _ in made.named_parameters()]
    assert sorted(stages) == sorted(names)
    assert num_layers(made, stages=True) == STAGES[name]
    assert (stages[names[0]], stages[names[-1]]) == (0, STAGES[name] - 1)


def test_the_head_of_a_network_counts_with_its_last_stage() -> None:
    stages = parameter_layers(network("tf_efficientnet_lite0"), stages=True)
    last = [name for name, stage in stages.items() if stage == 7]
    assert {name.split(".")[0] for name in last} == {"blocks", "conv_head", "bn2"}
    assert parameter_layers(network("convnext_atto"), stages=True)["head.norm.weight"] == 4


def test_layers_learn_slower_the_nearer_they_are_to_the_input() -> None:
    made = network("resnet10t")
    rates = layer_rates(made, 0.5)
    assert rates["conv1.0.weight"] == 0.5**5
    assert rates["layer1.0.bn1.weight"] == 0.5**4
    assert rates["layer4.0.conv1.weight"] == 0.5
    assert set(rates) == {name for name, _ in made.named_parameters()}


def test_a_network_that_says_nothing_is_one_layer() -> None:
    made = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert set(layer_rates(made, 0.5).values()) == {0.5}
    with pytest.raises(ValueError, match="there is 1 stage in the network, not 2"):
        freeze_all_but(made, 2)


def test_stages_before_the_last_ones_are_frozen_statistics_too() -> None:
    made = network("resnet10t")
    before = copy.deepcopy(made.state_dict())
    freeze_all_but(made, 2)
    made.train()
    made(torch.randn(2, 3, 64, 64)).sum().backward()
    for name, weight in made.named_parameters():
        assert (weight.grad is not None) == name.startswith(("layer3", "layer4")), name
    for name, tensor in made.state_dict().items():
        learns = name.startswith(("layer3", "layer4")) and "running" in name
        assert torch.equal(tensor, before[name]) != learns or "tracked" in name, name
    assert set(layer_rates(made, 0.75).values()) == {0.75, 0.75**2}
    with pytest.raises(ValueError, match="there are 5 stages in the network, not 6"):
        freeze_all_but(made, 6)


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet"])
def test_kept_statistics_stay_in_copies_and_whatever_mode_is_asked_for(name: str) -> None:
    made = network(name)
    plain = {key: value.clone() for key, value in made.state_dict().items()}
    for module in [*batchnorms(made), *batchnorms(made)]:
        keep_statistics(module)
    views = torch.randn(2, 3, 64, 64)
    expected = network(name)
    expected.load_state_dict(plain)
    for each in (made, copy.deepcopy(made)):
        each.train()
        torch.testing.assert_close(each(views), expected.eval()(views))
        synchronise_statistics(each)
        state = each.state_dict()
        assert state.keys() == plain.keys()
        assert all(torch.equal(value, plain[key]) for key, value in state.items())
    made(views).sum().backward()
    assert all(weight.grad is not None for weight in made.parameters())


def sums_of_thirds(rows: torch.Tensor) -> torch.Tensor:
    norm = nn.BatchNorm1d(3)
    assert norm.running_mean is not None
    norm.running_mean.copy_(rows)
    keep_statistics(norm)
    synchronise_statistics(norm)
    return norm.running_mean


@pytest.mark.ranks
def test_kept_statistics_are_the_same_bits_after_ranks_agreed_on_theirs(run_on_ranks) -> None:
    rows = torch.rand(3)
    for found in run_on_ranks(2, sums_of_thirds, [rows, rows]):
        assert torch.equal(found, rows)
