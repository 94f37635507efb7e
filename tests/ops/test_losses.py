"""The swapped prediction loss against loops over pictures and prototypes."""

import math

import pytest
import torch

from swav.ops.losses import swapped_pairs, swapped_prediction


def drawn(batch: int = 5, prototypes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.rand(batch, prototypes, generator=generator) - 1
    codes = torch.rand(batch, prototypes, generator=generator).softmax(dim=1)
    return scores, codes


@pytest.mark.parametrize("temperature", [0.1, 0.01, 1.0])
def test_equal_to_loops(temperature):
    scores, codes = drawn()
    total = 0.0
    for row in range(5):
        logits = [score / temperature for score in scores[row].tolist()]
        normaliser = math.log(sum(math.exp(logit) for logit in logits))
        for logit, code in zip(logits, codes[row].tolist(), strict=True):
            total -= code * (logit - normaliser)
    loss = swapped_prediction(scores, codes, temperature=temperature)
    assert loss.item() == pytest.approx(total / 5, rel=1e-6)


def test_the_gradient_is_softmax_minus_codes():
    scores, codes = drawn()
    scores.requires_grad_()
    codes.requires_grad_()
    swapped_prediction(scores, codes, temperature=0.1).backward()
    expected = ((scores.detach() / 0.1).softmax(dim=1) - codes.detach()) / (0.1 * 5)
    torch.testing.assert_close(scores.grad, expected)
    assert codes.grad is None


def test_the_entropy_of_the_codes_is_the_floor():
    scores, codes = drawn()
    floor = torch.special.entr(codes).sum(dim=1).mean()
    assert swapped_prediction(scores, codes, temperature=0.1) > floor + 0.1
    best = 0.1 * codes.log() + torch.randn(5, 1)
    torch.testing.assert_close(swapped_prediction(best, codes, temperature=0.1), floor)


@pytest.mark.parametrize(
    ("prototypes", "ln_k"), [(3000, 8.0064), (512, 6.2383), (300, 5.7038), (30, 3.4012)]
)
def test_a_collapsed_network_pays_ln_k(prototypes, ln_k):
    uniform = torch.full((4, prototypes), 1 / prototypes)
    loss = swapped_prediction(torch.full((4, prototypes), 0.3), uniform, temperature=0.1)
    assert loss.item() == pytest.approx(ln_k, abs=1e-4)


def test_half_precision_does_not_overflow():
    scores, codes = drawn()
    loss = swapped_prediction(scores.half(), codes, temperature=1e-5)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("num_targets", "num_views", "pairs"),
    [
        (1, 2, [(0, 1)]),
        (2, 2, [(0, 1), (1, 0)]),
        (2, 4, [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]),
        (1, 1, []),
    ],
)
def test_every_other_view_predicts_each_target(num_targets, num_views, pairs):
    assert list(swapped_pairs(num_targets, num_views)) == pairs
