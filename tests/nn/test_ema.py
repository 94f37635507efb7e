"""The moving average against its recursion."""

import torch
from torch import nn

from swav.nn.ema import MovingAverage


def test_weights_move_slowly_and_statistics_are_copied():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(module)
    expected = [weight.detach().clone() for weight in module.parameters()]
    for _ in range(5):
        module(torch.randn(6, 3))
        with torch.no_grad():
            for weight in module.parameters():
                weight.add_(torch.randn_like(weight))
        average.update(module, 0.9)
        expected = [
            0.9 * old + 0.1 * new.detach()
            for old, new in zip(expected, module.parameters(), strict=True)
        ]
    for found, value in zip(average.average.parameters(), expected, strict=True):
        torch.testing.assert_close(found, value)
    for found, buffer in zip(average.average.buffers(), module.buffers(), strict=True):
        assert torch.equal(found, buffer)
        assert found.data_ptr() != buffer.data_ptr()


def test_it_is_a_copy_that_is_never_trained():
    module = nn.Linear(3, 4)
    average = MovingAverage(module)
    assert not any(weight.requires_grad for weight in average.parameters())
    assert all(weight.requires_grad for weight in module.parameters())
    assert torch.equal(average.average.weight, module.weight)
    assert average.average.weight.data_ptr() != module.weight.data_ptr()
