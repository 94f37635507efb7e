"""State of objective and optimiser: everything comes back, bit for bit, or is named."""

from typing import Any

import pytest
import torch
from timm.optim.lars import Lars
from torch import Tensor, nn

from swav.run_folder.state import CheckpointError, flatten, restore, restore_weights


class Network(nn.Module):
    """Parameters, BatchNorm buffers, a frozen layer, a layer without gradient, and extra state."""

    def __init__(self, *, seed: int, width: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = nn.Conv2d(3, width, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.late = nn.Linear(4, 4)
        self.queue = torch.randn(2, 3)
        self.num_filled = seed
        self.share = seed / 3

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.norm(self.convolution(pictures)).mean(dim=(2, 3))
        scores: Tensor = self.late(self.frozen(self.head(features)))
        return scores.logsumexp(dim=1).mean()

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "queues": [self.queue, self.queue.bfloat16()],
            "numbers": {"num_filled": self.num_filled, "share": self.share, "full": True},
            "none": None,
        }

    def set_extra_state(self, state: Any) -> None:
        self.queue = state["queues"][0]
        assert torch.equal(state["queues"][1], self.queue.bfloat16())
        self.num_filled, self.share = state["numbers"]["num_filled"], state["numbers"]["share"]
        assert state["numbers"]["full"] is True
        assert state["none"] is None


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": vectors, "weight_decay": 0.0}, {"params": matrices}]
    return torch.optim.AdamW(groups, lr=0.01, amsgrad=True)


def lars(network: nn.Module) -> torch.optim.Optimizer:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return Lars(weights, lr=0.3, momentum=0.9, weight_decay=1e-6, always_adapt=True)


OPTIMIZERS = pytest.mark.parametrize("build", [sgd, adamw, lars])


def train(network: Network, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        pictures = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(pictures).backward()
        if step < 8:
            for weight in network.late.parameters():
                weight.grad = None
        optimizer.step()
        network.queue = network.queue * 0.9 + step
        network.num_filled += 1


def saved(network: Network, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return flatten(network.state_dict(), optimizer, network.named_parameters())


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        assert torch.equal(one[key], other[key]), key


@OPTIMIZERS
@pytest.mark.parametrize("stop", [0, 1, 5, 9], ids="after {} steps".format)
def test_interrupted_equals_uninterrupted(build: Any, stop: int) -> None:
    whole = Network(seed=1)
    whole_optimizer = build(whole)
    train(whole, whole_optimizer, range(12))

    first = Network(seed=1)
    first_optimizer = build(first)
    train(first, first_optimizer, range(stop))
    state = saved(first, first_optimizer)
    second = Network(seed=2)
    second_optimizer = build(second)
    restore(state, second, second_optimizer)
    assert_same(saved(second, second_optimizer), state)
    assert type(second.num_filled) is int
    assert second.share == 1 / 3
    train(second, second_optimizer, range(stop, 12))

    assert_same(saved(second, second_optimizer), saved(whole, whole_optimizer))
    assert all(
        ours.stride() == theirs.stride()
        for ours, theirs in zip(_tensors(second_optimizer), _tensors(whole_optimizer), strict=True)
    )


def _tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    state = optimizer.state_dict()["state"]
    return [slots[slot] for _, slots in sorted(state.items()) for slot in sorted(slots)]


@OPTIMIZERS
def test_parameters_without_updates_have_no_state(build: Any) -> None:
    network = Network(seed=1)
    optimizer = build(network)
    train(network, optimizer, range(3))
    names = {key.split("/")[1] for key in saved(network, optimizer) if key.startswith("optimizer/")}
    trained = ("convolution", "norm", "head")
    assert names == {f"{module}.{kind}" for module in trained for kind in ("weight", "bias")}


def test_names_are_found_by_name_not_by_position() -> None:
    network = Network(seed=1)
    optimizer = sgd(network)
    train(network, optimizer, range(3))
    other = Network(seed=2)
    backwards = torch.optim.SGD([*other.parameters()][::-1], lr=0.1, momentum=0.9)
    restore(saved(network, optimizer), other, backwards)
    assert_same(saved(other, backwards), saved(network, optimizer))


def test_a_later_step_changes_neither_copy_nor_source() -> None:
    network = Network(seed=1)
    optimizer = adamw(network)
    train(network, optimizer, range(3))
    state = saved(network, optimizer)
    before = {key: tensor.clone() for key, tensor in state.items()}
    train(network, optimizer, range(3, 6))
    assert_same(state, before)
    other = Network(seed=2)
    other_optimizer = adamw(other)
    restore(state, other, other_optimizer)
    train(other, other_optimizer, range(3, 6))
    assert_same(state, before)


def test_tied_weights_are_saved_under_both_names() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    state = flatten(network.state_dict(), optimizer, network.named_parameters())
    assert torch.equal(state["model/0.weight"], state["model/1.weight"])
    assert state["model/0.weight"].data_ptr() != state["model/1.weight"].data_ptr()


def refusal(state: dict[str, Tensor], optimizer_of: Any = adamw, **options: Any) -> str:
    """Return why ``state`` does not fit, after making sure that nothing was changed."""
    network = Network(seed=2, **options)
    optimizer = optimizer_of(network)
    before = saved(network, optimizer)
    with pytest.raises(CheckpointError) as error:
        restore(state, network, optimizer)
    assert_same(saved(network, optimizer), before)
    return str(error.value)


@pytest.fixture
def state() -> dict[str, Tensor]:
    network = Network(seed=1)
    optimizer = adamw(network)
    train(network, optimizer, range(3))
    return saved(network, optimizer)


@pytest.mark.parametrize(
    "key",
    [
        "model/head.weight",
        "model/norm.running_mean",
        "model/_extra_state/queues/0",
        "model/_extra_state/numbers/share",
        "optimizer/head.weight/exp_avg_sq",
        "optimizer/head.bias/step",
        "optimizer_class/AdamW",
    ],
)
def test_a_missing_key_is_named(state: dict[str, Tensor], key: str) -> None:
    del state[key]
    assert f"missing: {key}" in refusal(state)


@pytest.mark.parametrize(
    "key", ["model/foot.weight", "optimizer/foot.weight/step", "ema/head.weight", "head.weight"]
)
def test_an_unexpected_key_is_named(state: dict[str, Tensor], key: str) -> None:
    state[key] = torch.zeros(3)
    assert f"unexpected: {key}" in refusal(state)


def test_another_shape_or_type_is_named(state: dict[str, Tensor]) -> None:
    message = refusal(state, width=6)
    assert "model/head.weight (float32 (4, 5) instead of float32 (4, 6))" in message
    assert "optimizer/head.weight/exp_avg (float32 (4, 5) instead of float32 (4, 6))" in message
    state["model/norm.bias"] = state["model/norm.bias"].double()
    assert "model/norm.bias (float64 (5,) instead of float32 (5,))" in refusal(state)


def test_another_optimizer_is_refused(state: dict[str, Tensor]) -> None:
    message = refusal(state, sgd)
    assert "missing: optimizer_class/SGD" in message
    assert "unexpected: optimizer_class/AdamW" in message


def test_extra_state_may_have_grown() -> None:
    network = Network(seed=1)
    network.queue = torch.randn(2, 9)
    other = Network(seed=2)
    restore(saved(network, sgd(network)), other, sgd(other))
    assert torch.equal(other.queue, network.queue)


def test_weights_alone(state: dict[str, Tensor]) -> None:
    network = Network(seed=2)
    restore_weights(state, network)
    found = saved(network, sgd(network))
    for key, value in state.items():
        if key.startswith("model/"):
            assert torch.equal(found[key], value)
    del state["model/head.bias"]
    with pytest.raises(CheckpointError, match=r"missing: model/head\.bias"):
        restore_weights(state, network)
