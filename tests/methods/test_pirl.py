"""PIRL: the loss as the paper writes it, in loops; the bank against a list."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pretext_tools import BATCH, CLOCK, Network, objective_and_batch
from torch import Tensor

from swav.engine import TrainingFacts
from swav.methods import PIRL, PIRLConfig
from swav.nn.heads import HeadConfig
from swav.ops.losses import memory_nce

TAU = 0.3
CONFIG = PIRLConfig(
    head=HeadConfig(hidden_dim=0, embed_dim=5), temperature=TAU, num_negatives=3, jigsaw_weight=0.3
)


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def nce_in_loops(embedding: Tensor, memory: Tensor, negatives: list[Tensor]) -> float:
    """Return eq. 4 of one embedding: everything is compared to it."""
    noise = sum(math.exp(float(embedding @ other) / TAU) for other in negatives)

    def h(candidate: Tensor) -> float:
        value = math.exp(float(embedding @ candidate) / TAU)
        return value / (value + noise)

    return -math.log(h(memory)) - sum(math.log(1 - h(other)) for other in negatives)


def test_the_loss_against_loops() -> None:
    embeddings, memories, negatives = unit(6, 5), unit(6, 5, seed=1), unit(9, 5, seed=2)
    same = torch.zeros(6, 9, dtype=torch.bool)
    same[0, 3] = same[0, 4] = same[5, 8] = True
    found = memory_nce(embeddings, memories, negatives, same, temperature=TAU)
    rows = [
        nce_in_loops(
            embeddings[row],
            memories[row],
            [other for other, own in zip(negatives, same[row], strict=True) if not own],
        )
        for row in range(6)
    ]
    assert float(found) == pytest.approx(sum(rows) / 6, rel=1e-12)


def test_a_row_without_negatives_has_no_loss_and_no_gradient() -> None:
    embeddings = unit(2, 5).requires_grad_()
    same = torch.tensor([[True, True], [False, True]])
    loss = memory_nce(embeddings, unit(2, 5, seed=1), unit(2, 5, seed=2), same, temperature=TAU)
    loss.backward()
    assert loss > 0
    assert embeddings.grad is not None
    assert torch.equal(embeddings.grad[0], torch.zeros(5, dtype=torch.float64))
    assert embeddings.grad[1].isfinite().all()


def test_sharp_temperatures_stay_finite() -> None:
    embeddings = unit(4, 5).float().requires_grad_()
    same = torch.zeros(4, 7, dtype=torch.bool)
    rows, others = unit(4, 5, seed=1).float(), unit(7, 5, seed=2).float()
    memory_nce(embeddings, rows, others, same, temperature=0.005).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def one_by_one(objective: Any, batch: Any, row: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return f of each whole view and g of each jigsaw of one picture."""
    whole = [view[row : row + 1] for view in batch.views[: batch.num_targets]]
    tiles = [view[row : row + 1] for view in batch.views[batch.num_targets :]]
    pictures = [objective.picture_head(objective.backbone(view))[0] for view in whole]
    seen = [objective.tile_head(objective.backbone(tile))[0] for tile in tiles]
    jigsaws = [
        objective.jigsaw_head(torch.cat(seen[start : start + 9]))
        for start in range(0, len(seen), 9)
    ]
    return [[F.normalize(e.double(), dim=0) for e in kind] for kind in (pictures, jigsaws)]


@torch.no_grad()
def test_the_step_against_loops() -> None:
    objective, batch = objective_and_batch(CONFIG)
    assert isinstance(objective, PIRL)
    assert (batch.num_targets, len(batch.views)) == (2, 11)
    bank = objective.memory.rows_of(torch.arange(BATCH))[0].double()
    chosen = objective.memory.draw(3, step=CLOCK.step).tolist()
    loss = 0.0
    for row, index in enumerate(batch.indices.tolist()):
        negatives = [bank[other] for other in chosen if other != index]
        pictures, jigsaws = one_by_one(objective, batch, row)
        for share, kind in ((0.7, pictures), (0.3, jigsaws)):
            losses = [nce_in_loops(embedding, bank[index], negatives) for embedding in kind]
            loss += share * sum(losses) / len(losses) / BATCH
    assert float(objective(batch, CLOCK).loss) == pytest.approx(loss, rel=1e-5)


@torch.no_grad()
def test_the_bank_follows_the_pictures_with_momentum() -> None:
    objective, batch = objective_and_batch(replace(CONFIG, memory_momentum=0.25))
    assert isinstance(objective, PIRL)
    expected: dict[int, Tensor] = {}
    for step in range(3):
        clock = replace(CLOCK, step=step)
        objective.before_step(clock)
        for rows in (slice(0, 1), slice(1, BATCH)):  # two micro-batches
            views = tuple(view[rows] for view in batch.views)
            share = batch._replace(views=views, indices=batch.indices[rows])
            objective(share, clock)
        objective.after_step(clock)
        for row, index in enumerate(batch.indices.tolist()):
            mean = torch.stack(one_by_one(objective, batch, row)[0]).mean(dim=0)
            new = F.normalize(mean, dim=0)
            old = expected.get(index, new)  # a row that was only drawn is replaced
            expected[index] = F.normalize(0.25 * old + 0.75 * new, dim=0)
        for weight in objective.picture_head.parameters():
            weight.mul_(-1.5 + step)  # so that the embeddings differ from step to step
    found = objective.memory.rows_of(torch.arange(BATCH))[0]
    for index, row in expected.items():
        torch.testing.assert_close(found[index].double(), row, atol=1e-6, rtol=0)


def test_negatives_are_at_most_one_for_each_picture_and_change_with_the_step() -> None:
    objective, batch = objective_and_batch(replace(CONFIG, num_negatives=32_000))
    assert isinstance(objective, PIRL)
    assert objective(batch, CLOCK).loss.isfinite()
    draws = {tuple(objective.memory.draw(3, step=step).tolist()) for step in range(20)}
    assert len(draws) > 5


def test_the_encoder_is_the_plain_backbone() -> None:
    assert isinstance(objective_and_batch(CONFIG)[0].encoder, Network)


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": 0.0},
        {"num_negatives": 0},
        {"memory_momentum": 1.0},
        {"jigsaw_weight": 1.0},
        {"gap": 1.0},
    ],
)
def test_settings_that_cannot_be_are_refused(config: dict[str, Any]) -> None:
    (name,) = config
    with pytest.raises(ValueError, match=name):
        PIRLConfig(**config)


def test_one_picture_has_no_negatives() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        CONFIG.build(Network(), TrainingFacts(feature_dim=12, num_images=1, global_batch=1))
