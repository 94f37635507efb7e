"""Prototypes: cosines in float32, and a length of one that stays."""

import torch
import torch.nn.functional as F

from swav.nn.prototypes import Prototypes, PrototypeUsage


def test_scores_are_cosines_of_unit_vectors():
    prototypes = Prototypes(16, (5, 9))
    prototypes.normalise()
    embeddings = F.normalize(torch.randn(7, 16), dim=1)
    scores = prototypes(embeddings)
    assert [tuple(head.shape) for head in scores] == [(7, 5), (7, 9)]
    for head, weight in zip(scores, prototypes.parameters(), strict=True):
        expected = F.cosine_similarity(embeddings[:, None], weight[None], dim=2)
        torch.testing.assert_close(head, expected)


def test_normalise_keeps_directions_and_the_tensors_themselves():
    prototypes = Prototypes(16, (50,))
    weight = next(prototypes.parameters())
    before, storage = weight.detach().clone() * 3, weight.data_ptr()
    prototypes.normalise()
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(F.cosine_similarity(weight, before), torch.ones(50))
    assert weight.data_ptr() == storage
    assert weight.requires_grad


def test_normalising_again_changes_no_bit():
    """Frozen prototypes are normalised before every step, and may not drift."""
    prototypes = Prototypes(128, (3000,))
    prototypes.normalise()
    first = next(prototypes.parameters()).detach().clone()
    for _ in range(5):
        prototypes.normalise()
        assert torch.equal(next(prototypes.parameters()), first)


def test_scores_are_float32_under_autocast():
    prototypes = Prototypes(16, (5,))
    embeddings = torch.randn(7, 16)
    (plain,) = prototypes(embeddings)
    with torch.autocast("cpu", torch.bfloat16):
        (scores,) = prototypes(embeddings)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, plain)


def test_started_like_a_linear_layer():
    torch.manual_seed(0)
    weight = next(Prototypes(16, (5,)).parameters())
    torch.manual_seed(0)
    assert torch.equal(weight, torch.nn.Linear(16, 5, bias=False).weight)


def test_usage_is_the_fraction_chosen_since_a_step():
    usage = PrototypeUsage((4, 2))
    usage.record([torch.eye(4)[[0, 1]], torch.eye(2)[[0, 0]]], 0)
    usage.record([torch.eye(4)[[1, 3]], torch.eye(2)[[0, 0]]], 5)
    assert usage.used_since(-7).item() == (3 / 4 + 1 / 2) / 2  # those never chosen do not count
    assert usage.used_since(0).item() == (2 / 4 + 1 / 2) / 2
