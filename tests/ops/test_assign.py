"""Sinkhorn's codes against POT, the reference's steps, and what the paper promises of them."""

import math
from functools import partial

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from scipy.special import logsumexp

from swav.ops.assign import Prior, hard_codes, power_law, sinkhorn, unbalanced_sinkhorn

ITERATIONS = pytest.mark.parametrize("iterations", [1, 3, 10])


def cosines(batch: int, prototypes: int, *, seed: int = 0, embed: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(batch, embed, generator=generator), dim=1)
    directions = F.normalize(torch.randn(prototypes, embed, generator=generator), dim=1)
    return rows @ directions.T


def reference(scores: torch.Tensor, epsilon: float, iterations: int) -> np.ndarray:
    """Steps of the reference on exp(scores / epsilon), factors and order and all."""
    codes = np.exp(scores.double().numpy() / epsilon).T
    num_prototypes, num_images = codes.shape
    codes /= codes.sum()
    for _ in range(iterations):
        codes /= codes.sum(axis=1, keepdims=True) * num_prototypes
        codes /= codes.sum(axis=0, keepdims=True) * num_images
    return (codes * num_images).T


def in_logarithms(scores: torch.Tensor, epsilon: float, iterations: int) -> np.ndarray:
    """Potentials of prototypes and pictures in float64; a column of -inf takes no part."""
    values = scores.double().numpy() / epsilon
    alive = np.isfinite(values).any(axis=0)
    kept = values[:, alive]
    for_prototypes, for_images = np.zeros((1, kept.shape[1])), np.zeros((len(kept), 1))
    for _ in range(iterations):
        for_prototypes = logsumexp(kept - for_images, axis=0, keepdims=True)
        for_images = logsumexp(kept - for_prototypes, axis=1, keepdims=True)
    if iterations == 0:
        for_images = logsumexp(kept, axis=1, keepdims=True)
    codes = np.zeros_like(values)
    codes[:, alive] = np.exp(kept - for_prototypes - for_images)
    return codes


@ITERATIONS
@pytest.mark.parametrize("epsilon", [0.03, 0.05, 0.1])
def test_equal_to_optimal_transport_by_pot(epsilon, iterations):
    """POT balances columns (prototypes) first and rows (pictures) last, as SwAV does."""
    scores = cosines(40, 12)
    plan = ot.sinkhorn(
        np.full(40, 1 / 40),
        np.full(12, 1 / 12),
        -scores.double().numpy(),
        reg=epsilon,
        numItermax=iterations,
        stopThr=0,
        warn=False,
    )
    codes = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    np.testing.assert_allclose(codes, plan * 40, rtol=0, atol=1e-6)


@pytest.mark.parametrize("iterations", [0, 1, 3, 10])
def test_equal_to_the_steps_of_the_reference(iterations):
    scores = cosines(40, 12)
    codes = sinkhorn(scores, epsilon=0.05, iterations=iterations)
    expected = reference(scores, 0.05, iterations)
    if iterations == 0:  # the reference would leave the pictures unequal
        expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(codes, expected, rtol=0, atol=1e-6)


def ties() -> torch.Tensor:
    return (cosines(40, 12) * 4).round() / 4


def dead_columns() -> torch.Tensor:
    scores = cosines(40, 12)
    scores[:, [0, 7]] = -torch.inf
    scores[3, 5:] = -torch.inf
    return scores


SCORES = {
    "cosines": cosines(40, 12),
    "many prototypes": cosines(8, 60),
    "on a circle": cosines(60, 30, embed=2),
    "large": 10 * cosines(40, 12),
    "ties": ties(),
    "all equal": torch.full((9, 4), 0.7),
    "-inf": dead_columns(),
    "bfloat16": cosines(40, 12).bfloat16(),
    "float16": cosines(40, 12).half(),
    "one picture": cosines(1, 12),
    "one prototype": cosines(40, 1),
    "one of each": cosines(1, 1),
}


@pytest.mark.parametrize("name", SCORES)
def test_as_exact_as_float32_codes_can_be(name):
    scores = SCORES[name]
    largest = scores[scores.isfinite()].abs().max().item()
    for epsilon in (0.05, 0.01, 0.001):
        for iterations in (0, 1, 3, 10):
            codes = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
            assert codes.dtype == torch.float32
            expected = in_logarithms(scores, epsilon, iterations)
            bound = 1e-6 + 2e-8 * largest / epsilon
            np.testing.assert_allclose(codes, expected, rtol=0, atol=bound)
            np.testing.assert_allclose(codes.sum(dim=1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30, 3e38])
@pytest.mark.parametrize("epsilon", [1e-3, 0.05, 100.0])
def test_no_scores_overflow(scale, epsilon):
    codes = sinkhorn(scale * cosines(20, 6), epsilon=epsilon)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(20), rtol=0, atol=1e-6)


@ITERATIONS
def test_a_picture_that_can_go_nowhere_is_spread_evenly_and_changes_nothing(iterations):
    scores = dead_columns()
    scores[11] = -torch.inf
    codes = sinkhorn(scores, epsilon=0.05, iterations=iterations)
    torch.testing.assert_close(codes[11], torch.full((12,), 1 / 12))
    others = [row for row in range(40) if row != 11]
    alone = sinkhorn(scores[others], epsilon=0.05, iterations=iterations)
    torch.testing.assert_close(codes[others], alone, rtol=0, atol=1e-6)


def test_a_constant_on_all_scores_changes_nothing():
    scores = (cosines(40, 12) * 64).round() / 64  # so that adding 512 is exact
    torch.testing.assert_close(
        sinkhorn(scores + 512, epsilon=0.05), sinkhorn(scores, epsilon=0.05), rtol=0, atol=1e-6
    )


def test_permuting_pictures_or_prototypes_permutes_codes():
    scores = cosines(40, 12)
    codes = sinkhorn(scores, epsilon=0.05)
    images, prototypes = torch.randperm(40), torch.randperm(12)
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-6)
    close(sinkhorn(scores[images], epsilon=0.05), codes[images])
    close(sinkhorn(scores[:, prototypes], epsilon=0.05), codes[:, prototypes])


def test_autocast_changes_no_bit():
    scores = cosines(40, 12)
    plain = sinkhorn(scores, epsilon=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sinkhorn(scores, epsilon=0.05), plain)


def test_no_gradient_flows():
    assert not sinkhorn(cosines(4, 3).requires_grad_(), epsilon=0.05).requires_grad


@pytest.mark.ranks
@pytest.mark.parametrize("sizes", [(20, 20), (33, 7), (39, 1)])
def test_same_codes_on_any_number_of_ranks(run_on_ranks, sizes):
    scores = dead_columns()
    scores[: sizes[0], 4] = -torch.inf  # dead on the first rank alone
    for epsilon in (0.05, 0.001):
        together = sinkhorn(scores, epsilon=epsilon)
        codes = run_on_ranks(2, partial(sinkhorn, epsilon=epsilon), scores.split(sizes))
        torch.testing.assert_close(torch.cat(codes), together, rtol=0, atol=1e-6)


# How far the mass of a prototype is from its share in one draw of 256 unit vectors and 300
# prototypes at epsilon 0.05; extremes of a draw vary, so their median is compared.
FURTHEST = {0: 0.87, 1: 0.19, 3: 0.007, 5: 0.0002, 10: 0.0}


@pytest.mark.parametrize("iterations", FURTHEST)
def test_prototypes_share_the_pictures_the_more_equally_the_longer(iterations):
    furthest, entropies = [], []
    for seed in range(9):
        scores = cosines(256, 300, embed=128, seed=seed)
        codes = sinkhorn(scores, epsilon=0.05, iterations=iterations)
        furthest.append((codes.sum(dim=0) * 300 / 256 - 1).abs().max())
        entropies.append(torch.special.entr(codes).sum(dim=1).mean() / math.log(300))
    if iterations > 0:
        assert np.mean(entropies) == pytest.approx(0.764, abs=0.015)
    median = float(np.median(furthest))
    assert FURTHEST[iterations] / 3 <= median <= 3 * FURTHEST[iterations] + 2e-6


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_identical_features_cannot_tell_prototypes_apart(iterations):
    scores = cosines(1, 300, embed=128).expand(256, -1)
    entropy = torch.special.entr(sinkhorn(scores, epsilon=0.05, iterations=iterations)).sum(dim=1)
    if iterations == 0:
        assert (entropy < math.log(300) - 0.1).all()
    else:
        np.testing.assert_allclose(entropy, math.log(300), rtol=0, atol=2e-6)


@pytest.mark.parametrize("epsilon", [0.0, -0.05, math.nan])
def test_a_wrong_epsilon_is_named(epsilon):
    with pytest.raises(ValueError, match=rf"epsilon {epsilon} must be positive.*0\.05"):
        sinkhorn(cosines(4, 3), epsilon=epsilon)


def test_negative_iterations_are_named():
    with pytest.raises(ValueError, match="iterations -1 must not be negative: SwAV uses 3"):
        sinkhorn(cosines(4, 3), epsilon=0.05, iterations=-1)


def test_hard_codes_put_all_on_the_largest():
    codes = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.1, 0.5]])
    assert hard_codes(codes).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert hard_codes(codes.half()).dtype == torch.float16


SHARES = torch.tensor([0.3, 0.02, *[0.068] * 10])


@ITERATIONS
def test_given_shares_are_those_of_optimal_transport_by_pot(iterations):
    scores = cosines(40, 12)
    plan = ot.sinkhorn(
        np.full(40, 1 / 40),
        SHARES.double().numpy() / SHARES.double().sum().item(),
        -scores.double().numpy(),
        reg=0.05,
        numItermax=iterations,
        stopThr=0,
        warn=False,
    )
    codes = sinkhorn(scores, epsilon=0.05, iterations=iterations, prior=3 * SHARES)
    np.testing.assert_allclose(codes, plan * 40, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
@pytest.mark.parametrize("strength", [0.01, 0.2])
def test_shares_that_may_be_left_are_those_of_unbalanced_transport_by_pot(strength):
    scores = cosines(40, 12)
    plan = ot.unbalanced.sinkhorn_unbalanced(
        np.full(40, 1 / 40),
        SHARES.double().numpy(),
        -scores.double().numpy(),
        reg=0.05,
        reg_m=(math.inf, strength),
        reg_type="entropy",
        numItermax=200,
        stopThr=1e-14,
    )
    codes = unbalanced_sinkhorn(scores, SHARES, epsilon=0.05, strength=strength, iterations=200)
    np.testing.assert_allclose(codes, plan * 40, rtol=0, atol=2e-6)


def test_between_the_softmax_and_the_given_shares():
    scores = cosines(40, 12)
    loose = unbalanced_sinkhorn(scores, SHARES, epsilon=0.05, strength=1e-9)
    torch.testing.assert_close(loose, (scores / 0.05).softmax(dim=1), rtol=0, atol=1e-6)
    firm = unbalanced_sinkhorn(scores, SHARES, epsilon=0.05, strength=1e9, iterations=300)
    exact = sinkhorn(scores, epsilon=0.05, iterations=300, prior=SHARES)
    torch.testing.assert_close(firm, exact, rtol=0, atol=1e-6)


@pytest.mark.ranks
def test_unbalanced_codes_are_the_same_on_two_ranks(run_on_ranks):
    scores = dead_columns()
    scores[11] = -torch.inf
    transport = partial(unbalanced_sinkhorn, prior=SHARES, epsilon=0.05, strength=0.05)
    together = transport(scores)
    assert together.isfinite().all()
    codes = run_on_ranks(2, transport, scores.split([33, 7]))
    torch.testing.assert_close(torch.cat(codes), together, rtol=0, atol=1e-6)


def test_a_wrong_strength_is_named():
    with pytest.raises(ValueError, match=r"strength 0\.0 must be positive: try 0\.5"):
        unbalanced_sinkhorn(cosines(4, 12), SHARES, epsilon=0.05, strength=0.0)


def test_a_power_law_adds_up_to_one():
    shares = power_law(4, exponent=1.0)
    np.testing.assert_allclose(shares, np.array([12, 6, 4, 3]) / 25, rtol=1e-6)
    assert torch.equal(power_law(4, exponent=0.0), torch.full((4,), 0.25))


def test_the_prior_picks_the_transport():
    scores, rounds = cosines(40, 4), {"epsilon": 0.05, "iterations": 5}
    weights = torch.tensor([4.0, 3.0, 2.0, 1.0])
    falling = power_law(4, exponent=2.0)
    expected = {
        Prior(): sinkhorn(scores, **rounds),
        Prior(exponent=2.0): sinkhorn(scores, prior=falling, **rounds),
        Prior(weights=(4.0, 3.0, 2.0, 1.0)): sinkhorn(scores, prior=weights / 10, **rounds),
        Prior(exponent=2.0, strength=0.3): unbalanced_sinkhorn(
            scores, falling, strength=0.3, **rounds
        ),
    }
    for prior, codes in expected.items():
        assert torch.equal(prior.codes(scores, **rounds), codes)
