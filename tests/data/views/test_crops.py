"""Crops: their boxes against torchvision, and their settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import NUM_DRAWS, CropGroup, ViewsConfig, draw_boxes

NUM_BOXES = 3000


def boxes_of(group: CropGroup, height: int, width: int, *, num: int = NUM_BOXES, seed: int = 0):
    uniform = np.random.default_rng(seed).random((num, NUM_DRAWS))
    sizes = np.tile(np.array([[height, width]], dtype=np.int64), (num, 1))
    return draw_boxes(group, sizes, uniform)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (60, 90, (0.14, 1.0)),
        (60, 90, (0.05, 0.14)),
        (400, 50, (0.3, 1.0)),  # most tries do not fit
        (32, 32, (0.08, 1.0)),
    ],
)
def test_boxes_are_distributed_as_torchvisions(height, width, scale):
    boxes, _ = boxes_of(CropGroup(count=1, size=(32, 32), scale=scale), height, width)
    torch.manual_seed(0)
    picture = torch.empty(1, height, width)
    transform = v2.RandomResizedCrop(32, scale=scale)
    drawn = [transform.make_params([picture]) for _ in range(NUM_BOXES)]
    theirs = np.array([[box["top"], box["left"], box["height"], box["width"]] for box in drawn])
    for ours, expected in (
        *zip(boxes.T, theirs.T, strict=True),
        (boxes[:, 2] * boxes[:, 3], theirs[:, 2] * theirs[:, 3]),
        (boxes[:, 3] / boxes[:, 2], theirs[:, 3] / theirs[:, 2]),
        (boxes[:, 0] + boxes[:, 2], theirs[:, 0] + theirs[:, 2]),
    ):
        assert stats.ks_2samp(ours, expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 50), (50, 1), (2, 3), (7, 300), (300, 7), (224, 224)]
)
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (3.0, 8.0), (0.1, 0.2)])
def test_boxes_are_always_inside(height, width, ratio):
    group = CropGroup(count=1, size=(8, 8), scale=(0.05, 1.0), ratio=ratio)
    boxes, _ = boxes_of(group, height, width, num=500)
    top, left, tall, wide = boxes.T
    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 200, [0, 93, 10, 13]),  # 10 x 4/3
        (200, 12, [92, 0, 16, 12]),
        (30, 30, [0, 0, 30, 30]),
    ],
)
def test_a_picture_that_nothing_fits_gives_its_centre(height, width, box):
    group = CropGroup(count=1, size=(8, 8), scale=(1.0, 1.0))
    uniform = np.full((1, NUM_DRAWS), 0.99)  # ratio 4/3, which does not fit
    sizes = np.array([[height, width]], dtype=np.int64)
    boxes, _ = draw_boxes(group, sizes, uniform)
    assert boxes[0].tolist() == box


def test_flips_are_as_frequent_as_asked():
    for chance in (0.0, 0.5, 1.0):
        group = CropGroup(
            count=1, size=(8, 8), scale=(0.5, 1.0), augment=AugmentConfig(flip=chance)
        )
        _, flips = boxes_of(group, 40, 40)
        assert stats.binomtest(int(flips.sum()), NUM_BOXES, chance).pvalue > 1e-4


def group(count: int = 2, size: int = 224) -> CropGroup:
    return CropGroup(count=count, size=(size, size), scale=(0.1, 1.0))


def test_views_are_counted_and_described():
    views = ViewsConfig(groups=(group(), group(6, 96)))
    assert (views.num_targets, views.num_views) == (2, 8)
    assert views.description == "2x224,6x96"
    changed = views.with_crops("2x160, 4x96x64")
    assert changed.description == "2x160,4x96x64"
    assert changed.groups[1].size == (96, 64)
    assert changed.groups[1].scale == views.groups[1].scale
    assert views.with_crops("3x32").num_views == 3


@pytest.mark.parametrize("crops", ["2", "2x", "x32", "2x32,4x16,1x8", "2*32", ""])
def test_wrong_crops_are_refused(crops):
    with pytest.raises(ValueError, match=r"at most 2 groups as COUNTxSIZE.*such as 2x224,6x96"):
        ViewsConfig(groups=(group(), group(6, 96))).with_crops(crops)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: group(0), "both must be positive"),
        (lambda: group(1, 0), "both must be positive"),
        (lambda: CropGroup(count=1, size=(8, 8), scale=(0.5, 0.2)), "two rising shares"),
        (lambda: CropGroup(count=1, size=(8, 8), scale=(0.5, 1.2)), "two rising shares"),
        (lambda: CropGroup(count=1, size=(8, 8), scale=(0.5, 1), ratio=(2, 1)), "ratio"),
        (lambda: ViewsConfig(groups=()), "at least one group"),
        (lambda: ViewsConfig(groups=(group(),), mean=(0.5,)), "one positive std a channel"),
        (lambda: ViewsConfig(groups=(group(),), std=(1.0, 0.0, 1.0)), "one positive std"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_augmentation_of_all_groups_is_set_at_once() -> None:
    first, second = (
        CropGroup(count=1, size=(8, 8), scale=(0.5, 1.0), augment=AugmentConfig(jitter=jitter))
        for jitter in (0.4, 0.6)
    )
    views = ViewsConfig(groups=(first, second)).with_augment(grey=0.0, jitter=0.1)
    calm = AugmentConfig(grey=0.0, jitter=0.1)
    assert views.groups == (replace(first, augment=calm), replace(second, augment=calm))
