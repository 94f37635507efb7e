"""CPC: the loss in loops, a context that sees nothing below, and a batch learnt by heart."""

from dataclasses import replace

import pytest
import torch
from pretext_tools import CLOCK, VIEWS, objective_and_batch
from torch import Tensor

from swav.data.batch import Batch
from swav.data.views.patch_grid import PatchGrid
from swav.engine import TrainingFacts
from swav.methods import CPC, CPCConfig
from swav.ops.losses import patch_nce

FACTS = TrainingFacts(feature_dim=4, num_images=8, global_batch=4)

METHOD = CPCConfig(
    grid=4, first_step=1, last_step=2, context_blocks=2, hidden_dim=6, embed_dim=5, scale=1.0
)


def built(method: CPCConfig = METHOD, width: int = 3) -> tuple[CPC, Batch]:
    objective, batch = objective_and_batch(method, width=width)
    assert isinstance(objective, CPC)
    return objective, batch


def in_loops(predictions: Tensor, targets: Tensor, down: int, scale: float) -> float:
    """Return the mean of -log softmax, patch by patch."""
    pictures, _, rows, columns = targets.shape
    losses = []
    for picture in range(pictures):
        for row in range(rows - down):
            for column in range(columns):
                own = predictions[picture, :, row, column]
                score = scale * (own * targets[picture, :, row + down, column]).sum()
                others = [
                    (scale * (own * targets[p, :, r, c]).sum()).exp()
                    for p in range(pictures)
                    for r in range(rows)
                    for c in range(columns)
                ]
                losses.append(float(torch.stack(others).sum().log() - score))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("down", [1, 2, 3])
def test_the_loss_is_that_of_the_paper(down: int) -> None:
    torch.manual_seed(0)
    targets = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    predictions = torch.randn(3, 5, 4 - down, 4, dtype=torch.float64)
    found = patch_nce(predictions, targets, down=down, scale=0.7)
    assert float(found) == pytest.approx(in_loops(predictions, targets, down, 0.7), rel=1e-12)


@torch.no_grad()
def test_each_step_down_is_predicted_from_the_context_so_far_above() -> None:
    objective, batch = built()
    objective.eval().double()
    batch = batch._replace(views=tuple(view.double() for view in batch.views))
    patches = objective.encode(batch)
    size, number = len(batch.indices), METHOD.grid**2
    assert patches.shape[:1] == (size * len(batch.views) // number,)
    for view, picture, row, column in [(0, 0, 0, 0), (1, 2, 3, 1), (2, 1, 2, 3)]:
        patch = batch.views[view * number + row * METHOD.grid + column][picture : picture + 1]
        expected = objective.backbone(patch)[0]
        torch.testing.assert_close(patches[view * size + picture, :, row, column], expected)
    context, targets = objective.context_of(patches), objective.target(patches)
    losses = [
        in_loops(predict(context[:, :, : METHOD.grid - down]), targets, down, 1.0)
        for down, predict in enumerate(objective.predictions, start=1)
    ]
    found = float(objective(batch, CLOCK).loss)
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_a_context_sees_its_row_and_those_above_alone() -> None:
    objective, _ = built()
    patches = torch.randn(1, 12, 4, 4, requires_grad=True)
    for row in range(4):
        (gradient,) = torch.autograd.grad(objective.context_of(patches)[:, :, row].sum(), patches)
        assert not gradient[:, :, row + 1 :].any()
        assert gradient[:, :, row].any()


def test_patches_overlap_and_reach_from_end_to_end() -> None:
    _, batch = objective_and_batch(METHOD)
    pixels = torch.arange(256.0 * 256).view(1, 1, 256, 256)
    grid = PatchGrid(grid=7, overlap=0.5)
    cut = grid(batch._replace(views=(pixels,), num_targets=1), seed=0, epoch=0)
    assert len(cut.views) == cut.num_targets == 49
    assert all(patch.shape == (1, 1, 64, 64) for patch in cut.views)
    for place, patch in enumerate(cut.views):
        row, column = divmod(place, 7)
        assert patch[0, 0, 0, 0] == 256 * 32 * row + 32 * column


def test_a_batch_is_learnt_by_heart() -> None:
    objective, batch = built(width=16)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        output = objective(batch, CLOCK)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="first_step 1 to last_step 3: give rows from 1 to 2"):
        CPCConfig(grid=3).check(FACTS)
    with pytest.raises(ValueError, match="first_step 3 to last_step 2"):
        replace(METHOD, first_step=3).check(FACTS)
    with pytest.raises(ValueError, match=r"overlap 1\.0 is not among"):
        CPCConfig(overlap=1.0)
    with pytest.raises(ValueError, match="too small for 32x32 patches"):
        CPCConfig(grid=32).pretext.check(VIEWS)
