"""Each loss against float64 loops that state its paper."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from swav.ops.losses import (
    bootstrap_distance,
    cluster_prediction,
    covariance_penalty,
    cross_correlation,
    info_nce,
    memory_nce,
    noise_contrast,
    nt_xent,
    unordered_pairs,
    variance_hinge,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(drawn(*shape, seed=seed), dim=-1)


def plain_nt_xent(embeddings: np.ndarray, temperature: float) -> float:
    """SwAV, appendix A.8: each anchor, each other view of its picture; all views of all others."""
    num_views, num_images, _ = embeddings.shape
    losses = []
    for image in range(num_images):
        for anchor in range(num_views):
            others = [
                math.exp(embeddings[anchor, image] @ embeddings[view, other] / temperature)
                for other in range(num_images)
                for view in range(num_views)
                if other != image
            ]
            for view in range(num_views):
                if view != anchor:
                    score = embeddings[anchor, image] @ embeddings[view, image] / temperature
                    losses.append(-math.log(math.exp(score) / (math.exp(score) + sum(others))))
    return float(np.mean(losses))


@pytest.mark.parametrize("num_views", [2, 5])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent(num_views, temperature):
    embeddings = unit(num_views, 6, 4)
    loss = nt_xent(embeddings, temperature=temperature)
    expected = plain_nt_xent(embeddings.double().numpy(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_nt_xent_of_two_views_is_that_of_simclr():
    """Equation 1: the softmax over all 2N - 1 other views."""
    views = unit(2, 5, 4)
    every = views.flatten(0, 1).double()
    scores = (every @ every.T / 0.2).fill_diagonal_(-torch.inf)
    own = torch.arange(10).roll(5)
    expected = F.cross_entropy(scores, own)
    assert nt_xent(views, temperature=0.2).item() == pytest.approx(expected.item(), rel=1e-5)


def gradient_of_nt_xent(share: torch.Tensor) -> torch.Tensor:
    leaf = share.clone().requires_grad_()
    nt_xent(leaf, temperature=0.1).backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.ranks
def test_nt_xent_of_two_ranks_is_that_of_one(run_on_ranks):
    embeddings = unit(3, 6, 4)
    shares = [part.contiguous() for part in embeddings.split([3, 3], dim=1)]
    gradients = run_on_ranks(2, gradient_of_nt_xent, shares)
    together = gradient_of_nt_xent(embeddings)
    torch.testing.assert_close(torch.cat(gradients, dim=1) / 2, together)  # DDP's mean
    losses = run_on_ranks(2, nt_xent_at_tenth, shares)
    assert sum(losses) / 2 == pytest.approx(nt_xent(embeddings, temperature=0.1).item(), rel=1e-5)


def nt_xent_at_tenth(share: torch.Tensor) -> float:
    return nt_xent(share, temperature=0.1).item()


def test_info_nce():
    queries, keys, negatives = unit(5, 4), unit(5, 4, seed=1), unit(7, 4, seed=2)
    total = 0.0
    for row in range(5):
        query = queries[row].double().numpy()
        positive = math.exp(query @ keys[row].double().numpy() / 0.2)
        others = sum(math.exp(query @ other / 0.2) for other in negatives.double().numpy())
        total -= math.log(positive / (positive + others)) / 5
    loss = info_nce(queries, keys, negatives, temperature=0.2)
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_noise_contrast():
    """Equations 5 to 7 of Wu et al., with m drawn rows of n and a given Z."""
    embeddings, memories, others = drawn(4, 3), drawn(4, 3, seed=1), drawn(6, 3, seed=2)
    n, m, z, temperature = 30, 6, 200.0, 0.2
    total = 0.0

    def probability_of_data(one: torch.Tensor, other: torch.Tensor) -> float:
        p = math.exp((one.double() @ other.double()).item() / temperature) / z
        return p / (p + m / n)

    for row, memory in zip(embeddings, memories, strict=True):
        total -= math.log(probability_of_data(row, memory)) / 4
        for other in others:
            total -= math.log(1 - probability_of_data(row, other)) / 4
    loss = noise_contrast(
        embeddings,
        memories,
        others,
        temperature=temperature,
        log_normaliser=torch.tensor(math.log(z)),
        num_images=n,
    )
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_bootstrap_distance():
    predictions, targets = drawn(5, 4), drawn(5, 4, seed=1)
    one, other = (
        rows.double().numpy() / np.linalg.norm(rows.double().numpy(), axis=1, keepdims=True)
        for rows in (predictions, targets)
    )
    expected = np.mean(((one - other) ** 2).sum(axis=1))
    assert bootstrap_distance(predictions, targets).item() == pytest.approx(expected, rel=1e-5)


def test_cross_correlation():
    """Equations 1 and 2 of Zbontar et al., element by element."""
    one, other = drawn(20, 3), drawn(20, 3, seed=1)
    other[:, 0] += one[:, 0]
    a, b = (rows.double().numpy() - rows.double().numpy().mean(axis=0) for rows in (one, other))
    total = 0.0
    for i in range(3):
        for j in range(3):
            lengths = math.sqrt((a[:, i] ** 2).sum()) * math.sqrt((b[:, j] ** 2).sum())
            c = (a[:, i] * b[:, j]).sum() / lengths
            total += (1 - c) ** 2 if i == j else 0.1 * c**2
    loss = cross_correlation(one, other, redundancy_weight=0.1)
    assert loss.item() == pytest.approx(total, rel=1e-4)
    same = cross_correlation(one, 3 * one + 2, redundancy_weight=0.0)
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_variance_and_covariance():
    """Equations 1 to 4 of Bardes et al., dimension by dimension."""
    embeddings = drawn(20, 3) * torch.tensor([0.2, 1.0, 3.0])
    values = embeddings.double().numpy()
    centred = values - values.mean(axis=0)
    short, squares = 0.0, 0.0
    for i in range(3):
        variance = (centred[:, i] ** 2).sum() / 19
        short += max(0.0, 1 - math.sqrt(variance + 1e-4)) / 3
        for j in range(3):
            if i != j:
                squares += ((centred[:, i] * centred[:, j]).sum() / 19) ** 2 / 3
    assert variance_hinge(embeddings).item() == pytest.approx(short, rel=1e-5)
    assert covariance_penalty(embeddings).item() == pytest.approx(squares, rel=1e-5)


def test_cluster_prediction_counts_unknown_clusters_as_zero():
    scores = drawn(4, 5)
    assignment = torch.tensor([2, -1, 0, 4])
    total = 0.0
    for row in (0, 2, 3):
        logits = [math.exp(score / 0.1) for score in scores[row].tolist()]
        total -= math.log(logits[int(assignment[row])] / sum(logits)) / 4
    loss = cluster_prediction(scores, assignment, temperature=0.1)
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_teachers_and_banks_get_no_gradient():
    student, teacher = unit(4, 3).requires_grad_(), unit(4, 3, seed=1).requires_grad_()
    bootstrap_distance(student, teacher).backward()
    info_nce(student, teacher, teacher, temperature=0.1).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("num_targets", "num_views", "pairs"),
    [(1, 2, [(0, 1)]), (2, 2, [(0, 1)]), (2, 4, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)])],
)
def test_each_pair_with_a_target_once(num_targets, num_views, pairs):
    assert list(unordered_pairs(num_targets, num_views)) == pairs


@pytest.mark.parametrize(
    "loss",
    [
        partial(nt_xent, temperature=0.1),
        lambda rows: info_nce(rows[0], rows[1], rows[2], temperature=0.1),
        lambda rows: noise_contrast(
            rows[0],
            rows[1],
            rows[2],
            temperature=0.1,
            log_normaliser=torch.tensor(5.0),
            num_images=30,
        ),
        lambda rows: memory_nce(
            rows[0], rows[1], rows[2], torch.zeros(12, 12, dtype=torch.bool), temperature=0.1
        ),
        lambda rows: cross_correlation(rows[0], rows[1], redundancy_weight=0.1),
        lambda rows: covariance_penalty(rows[0]),
    ],
)
def test_autocast_changes_no_bit_of_loss_and_gradient(loss):
    rows = torch.stack([drawn(12, 8, seed=seed) for seed in range(3)]).requires_grad_()
    plain = loss(rows)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(rows)
    assert torch.equal(half, plain)
    (wanted,), (found,) = torch.autograd.grad(plain, rows), torch.autograd.grad(half, rows)
    assert torch.equal(found, wanted)
