"""Rotation, jigsaw, relative position: the loss picture by picture, and a batch learnt by heart."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pretext_tools import BATCH, CLOCK, VIEWS, Network, objective_and_batch
from torch import Tensor

from swav.data.batch import Batch
from swav.methods import JigsawConfig, MethodConfig, RelativeConfig, RotationConfig
from swav.methods.jigsaw import side_by_side

ROTATION = RotationConfig()
JIGSAW = JigsawConfig(num_permutations=5, tile_dim=6, batchnorm=False)
RELATIVE = RelativeConfig(gap=0.25, hidden_dim=7, batchnorm=False, dropout=0.0)


def cross_entropy(logits: Tensor, answer: Tensor) -> float:
    values = logits.double()
    return float(values.exp().sum().log() - values[int(answer)])


def rotation_logits(objective: Any, batch: Batch, view: int, row: int) -> Tensor:
    return objective.classifier(objective.backbone(batch.views[view][row : row + 1]))[0]


def jigsaw_logits(objective: Any, batch: Batch, view: int, row: int) -> Tensor:
    tiles = [batch.views[9 * view + place][row : row + 1] for place in range(9)]
    seen = [objective.tile_head(objective.backbone(tile))[0] for tile in tiles]
    return objective.classifier(torch.cat(seen))


def relative_logits(objective: Any, batch: Batch, view: int, row: int) -> Tensor:
    middle, neighbour = (batch.views[2 * view + number][row : row + 1] for number in (0, 1))
    both = torch.cat([objective.backbone(middle)[0], objective.backbone(neighbour)[0]])
    return objective.classifier(both[None])[0]


CASES = [
    (ROTATION, rotation_logits),
    (JIGSAW, jigsaw_logits),
    (RELATIVE, relative_logits),
]
every_task = pytest.mark.parametrize(
    ("method", "logits_of"), CASES, ids=[method.name for method, _ in CASES]
)


@every_task
@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_each_answer(
    method: MethodConfig, logits_of: Callable[..., Tensor]
) -> None:
    objective, batch = objective_and_batch(method)
    objective.eval()
    found = objective(batch, CLOCK)
    losses, right = [], []
    for view in range(3):
        for row in range(BATCH):
            logits, answer = logits_of(objective, batch, view, row), batch.answers[row, view]
            losses.append(cross_entropy(logits, answer))
            right.append(float(logits.argmax() == answer))
    assert float(found.loss) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert float(found.metrics["pretext_accuracy"]) == pytest.approx(sum(right) / len(right))


@every_task
def test_a_batch_is_learnt_by_heart(method: MethodConfig, logits_of: Callable[..., Tensor]) -> None:
    objective, batch = objective_and_batch(method, width=16)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    accuracy = 0.0
    for _ in range(100):
        output = objective(batch, CLOCK)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        accuracy = float(output.metrics["pretext_accuracy"])
        if accuracy == 1:
            break
    assert accuracy > 0.9


@every_task
def test_the_encoder_is_the_plain_backbone(
    method: MethodConfig, logits_of: Callable[..., Tensor]
) -> None:
    objective, _ = objective_and_batch(method)
    assert isinstance(objective.encoder, Network)
    assert objective.encoder(torch.zeros(2, 3, 50, 40)).shape == (2, 12)


def test_tiles_are_joined_view_by_view_in_their_order() -> None:
    views, batch, features = 2, 3, 4
    values = torch.arange(views * 9 * batch * features).float()
    tiles = values.view(views, 9, batch, features)
    joined = side_by_side(tiles.flatten(0, 2), batch)
    for view in range(views):
        for row in range(batch):
            expected = torch.cat([tiles[view, place, row] for place in range(9)])
            assert torch.equal(joined[view * batch + row], expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_permutations": 1}, r"num_permutations 1 .*\[2, 362880\]"),
        ({"gap": 0.95}, r"gap 0\.95 must be 0 to 0\.9"),
        ({"tile_dim": 0}, "tile_dim 0"),
    ],
)
def test_a_jigsaw_that_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JigsawConfig(**config).pretext.check(VIEWS)


@pytest.mark.parametrize("config", [{"gap": -0.1}, {"jitter": 1.5}, {"dropout": 1.0}])
def test_a_relative_position_that_cannot_be_is_refused(config: dict[str, Any]) -> None:
    (name,) = config
    with pytest.raises(ValueError, match=name):
        RelativeConfig(**config)
