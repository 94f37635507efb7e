"""The pipelines: fused and device against Pillow and torchvision, from the same drawn numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from swav.data.sources.decode import Decoded
from swav.data.views import augment, numba_kernel, pillow_reference
from swav.data.views.augment import AugmentConfig, ColourParams
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import (
    MultiCrop,
    PictureBatch,
    make_byte_views,
    reduction,
    to_batch,
)

STRONG = AugmentConfig(jitter=1, grey=0.2, blur=0.5, solarise=0.2)
VIEWS = ViewsConfig(
    groups=(
        CropGroup(count=2, size=(32, 32), scale=(0.3, 1.0), augment=STRONG),
        CropGroup(count=1, size=(17, 22), scale=(0.05, 0.4), augment=STRONG),
    )
)


def photo_like(num: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Return pictures whose neighbouring pixels are alike, and some edges."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(num, channels, height // 4, width // 4, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    smooth[:, :, height // 2 :, : width // 3] *= 0.3
    return (smooth * 255).round().to(torch.uint8)


def unchanged(batch: int, **changes) -> ColourParams:
    never = np.zeros(batch, dtype=np.bool_)
    nothing = ColourParams(
        jitter=never,
        order=np.tile(np.arange(4), (batch, 1)),
        factors=np.tile(np.array([1, 1, 1, 0], dtype=np.float32), (batch, 1)),
        grey=never,
        blur=never,
        blur_radius=np.ones(batch, dtype=np.float32),
        solarise=never,
    )
    return replace(nothing, **changes)


def fused_views(pictures, boxes, flips, drawn, size) -> torch.Tensor:
    out = torch.empty(len(boxes), pictures.shape[1], *size, dtype=torch.uint8)
    rows = np.arange(len(boxes)) % len(pictures)
    numba_kernel.render(pictures, rows, boxes.astype(np.float32), flips, drawn, out)
    return out


def by_pillow(picture: torch.Tensor, box: np.ndarray, flip: bool, size: tuple[int, int]):
    top, left, height, width = box.tolist()
    values = picture[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    image = Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=None)
    resized = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return resized.flip(2) if flip else resized


def random_boxes(num: int, height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    tall, wide = generator.integers(1, height + 1, num), generator.integers(1, width + 1, num)
    top = generator.integers(0, height - tall + 1)
    left = generator.integers(0, width - wide + 1)
    return np.stack([top, left, tall, wide], axis=1)


@pytest.mark.parametrize("size", [(12, 12), (30, 21), (50, 70), (1, 1)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_resized_pixels_are_pillows(size, channels_last):
    pictures = photo_like(6, 40, 33)
    if channels_last:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
    boxes = random_boxes(60, 40, 33)
    flips = np.arange(60) % 3 == 0
    found = fused_views(pictures, boxes, flips, None, size)
    for row, view in enumerate(found):
        expected = by_pillow(pictures[row % 6], boxes[row], bool(flips[row]), size)
        assert (view.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_channels_are_resized_alone_however_they_lie_in_memory(channels):
    pictures = photo_like(3, 24, 36, channels)
    boxes, flips = random_boxes(3, 24, 36), np.array([True, False, True])
    found = fused_views(pictures, boxes, flips, None, (11, 13))
    last = pictures.contiguous(memory_format=torch.channels_last)
    assert torch.equal(fused_views(last, boxes, flips, None, (11, 13)), found)
    for channel in range(channels):
        alone = fused_views(pictures[:, channel : channel + 1], boxes, flips, None, (11, 13))
        assert torch.equal(alone[:, 0], found[:, channel])


FACTORS = (0.2, 0.7, 1.0, 1.4, 1.8)
SHIFTS = (-0.5, -0.2, 0.05, 0.13, 0.4)


@pytest.mark.parametrize(
    ("channels", "operation", "theirs", "values"),
    [
        (1, 0, tv.adjust_brightness, FACTORS),
        (3, 0, tv.adjust_brightness, FACTORS),
        (1, 1, tv.adjust_contrast, FACTORS),
        (3, 1, tv.adjust_contrast, FACTORS),
        (3, 2, tv.adjust_saturation, FACTORS),
        (3, 3, tv.adjust_hue, SHIFTS),
    ],
)
def test_each_operation_of_the_jitter_is_torchvisions_on_pillow(
    channels, operation, theirs, values
):
    pictures = torch.randint(0, 256, (5, channels, 9, 14)).to(torch.uint8)
    pictures[0] = pictures[0, :1]  # without colour
    boxes = np.tile([0, 0, 9, 14], (5, 1))
    factors = np.tile(np.array([1, 1, 1, 0], dtype=np.float32), (5, 1))
    factors[:, operation] = values
    drawn = unchanged(5, jitter=np.ones(5, dtype=np.bool_), factors=factors)
    found = fused_views(pictures, boxes, np.zeros(5, dtype=np.bool_), drawn, (9, 14))
    for picture, value, view in zip(pictures, values, found, strict=True):
        image = theirs(tv.to_pil_image(picture), value)
        different = (view.int() - tv.pil_to_tensor(image).int()).abs()
        assert different.max() <= 6  # one of 256 hues, where the last bit of a float decides
        assert (different > 0).float().mean() <= 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_blur_and_solarise(channels):
    pictures = photo_like(4, 20, 27, channels)
    boxes, flips = np.tile([0, 0, 20, 27], (4, 1)), np.zeros(4, dtype=np.bool_)
    always = np.ones(4, dtype=np.bool_)
    radii = np.array([0.1, 0.6, 1.3, 2.0], dtype=np.float32)
    whole = pictures / 255
    grey = fused_views(pictures, boxes, flips, unchanged(4, grey=always), (20, 27))
    assert (grey - augment.luma(whole) * 255).abs().max() <= 0.51
    blurred = unchanged(4, blur=always, blur_radius=radii)
    expected = augment.blur(whole, torch.from_numpy(radii)) * 255
    found = fused_views(pictures, boxes, flips, blurred, (20, 27))
    assert (found - expected).abs().max() <= 0.51
    solarised = fused_views(pictures, boxes, flips, unchanged(4, solarise=always), (20, 27))
    assert torch.equal(solarised, torch.where(pictures >= 128, 255 - pictures, pictures))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("many_sizes", [True, False])
def test_all_pipelines_show_the_same(channels, many_sizes):
    """The device rounds once, at the end, and so comes out about a level brighter."""
    pixels = photo_like(24, 48, 60, channels)
    indices = np.arange(24)
    whole = [Decoded(each, (48, 60)) for each in pixels]
    pictures = PictureBatch(whole) if many_sizes else PictureBatch(pixels, indices)
    made = {
        name: make_byte_views(pictures, indices, VIEWS, seed=3, epoch=1, pipeline=name)
        for name in ("fused", "device", "pillow")
    }
    assert len(made["device"].colours) == 3
    assert not made["fused"].colours
    views = replace(VIEWS, mean=(0.0,) * channels, std=(1.0,) * channels)
    fused_, device, pillow = (to_batch(each, views).views for each in made.values())
    for ours, later, theirs in zip(fused_, device, pillow, strict=True):
        assert (ours - theirs).abs().mean() * 255 <= 0.5
        assert (ours - theirs).abs().flatten(1).mean(dim=1).max() * 255 <= 2
        assert (ours - later).abs().mean() * 255 <= 1.5


def test_a_view_depends_on_its_picture_alone():
    pixels = photo_like(16, 40, 40)
    whole = make_byte_views(
        PictureBatch(pixels, np.arange(16)), np.arange(16), VIEWS, seed=0, epoch=0
    )
    some = np.array([11, 3])
    alone = make_byte_views(PictureBatch(pixels, some), some, VIEWS, seed=0, epoch=0)
    assert alone.indices.tolist() == [11, 3]
    for one, all_ in zip(alone.views, whole.views, strict=True):
        assert torch.equal(one, all_[torch.from_numpy(some)])


def test_views_are_normalised_and_of_the_sizes_asked_for():
    views = replace(VIEWS, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    made = make_byte_views(
        PictureBatch(photo_like(8, 20, 30), np.arange(8)), np.arange(8), views, seed=0, epoch=0
    )
    shapes = [(8, 3, 32, 32), (8, 3, 32, 32), (8, 3, 17, 22)]
    assert [tuple(view.shape) for view in made.views] == shapes
    batch = to_batch(made, views)
    assert batch.num_targets == 2
    mean, std = (torch.tensor(each)[:, None, None] for each in (views.mean, views.std))
    for view, raw in zip(batch.views, made.views, strict=True):
        torch.testing.assert_close(view, (raw / 255 - mean) / std)
    assert not torch.equal(batch.views[0], batch.views[1])


def test_pillow_has_no_views_of_five_channels():
    rows = np.arange(2)
    shown = PictureBatch(photo_like(2, 20, 20, 5), rows)
    with pytest.raises(ValueError, match=r"1 or 3 channels, not of 5: use --views\.pipeline fused"):
        make_byte_views(shown, rows, VIEWS, seed=0, epoch=0, pipeline="pillow")


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(461, 400, 1), (3000, 4000, 4), (1500, 2000, 2), (6000, 8000, 8), (12000, 200, 1), (1, 1, 1)],
)
def test_only_a_large_picture_is_decoded_at_a_fraction(height, width, expected):
    views = ViewsConfig(
        groups=(
            CropGroup(count=2, size=(224, 224), scale=(0.14, 1.0)),
            CropGroup(count=6, size=(96, 96), scale=(0.05, 0.14)),
        )
    )
    assert reduction(views, height, width) == expected
    assert reduction(views, width, height) == expected


def test_boxes_of_a_fraction_are_those_of_the_whole():
    """The views of a picture and of the same at half its size show the same."""
    large = photo_like(6, 96, 128)
    half = F.interpolate(large.float(), scale_factor=0.5, mode="area").round().to(torch.uint8)
    group = CropGroup(
        count=2, size=(16, 16), scale=(0.4, 1.0), augment=AugmentConfig(jitter=0, grey=0, blur=0)
    )
    views = ViewsConfig(groups=(group,))
    whole = [Decoded(each, (96, 128)) for each in large]
    reduced = [Decoded(each, (96, 128), 2) for each in half]
    made = [
        make_byte_views(PictureBatch(each), np.arange(6), views, seed=0, epoch=0)
        for each in (whole, reduced)
    ]
    for one, other in zip(made[0].views, made[1].views, strict=True):
        assert (one.float() - other.float()).abs().mean() <= 2


def test_the_plain_path_is_torchvisions_on_pillow():
    """Brightness, then hue, on a mirrored crop, as a user of torchvision would write it."""
    picture = photo_like(1, 30, 40)[0]
    always = np.ones(1, dtype=np.bool_)
    order = np.array([[0, 3, 1, 2]])
    factors = np.array([[1.5, 1.0, 1.0, 0.1]], dtype=np.float32)
    drawn = unchanged(1, jitter=always, order=order, factors=factors)
    box = np.array([2, 3, 20, 30], dtype=np.float32)
    found = pillow_reference.render(picture, box, True, drawn, 0, (10, 12))
    image = tv.to_pil_image(picture)
    image = tv.hflip(tv.resized_crop(image, 2, 3, 20, 30, [10, 12]))
    expected = tv.pil_to_tensor(tv.adjust_hue(tv.adjust_brightness(image, 1.5), 0.1))
    assert (found.int() - expected.int()).abs().max() <= 1


def test_multi_crop_gives_the_views_of_a_training_to_any_loop() -> None:
    pictures = photo_like(3, 48, 40)
    indices = np.array([5, 0, 9])
    made = make_byte_views(
        PictureBatch([Decoded(each, (48, 40)) for each in pictures]),
        indices,
        VIEWS,
        seed=7,
        epoch=2,
    )
    multi_crop = MultiCrop(VIEWS, seed=7)
    batch = multi_crop(list(pictures), indices.tolist(), epoch=2)
    images = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in pictures]
    of_pillow = multi_crop(images[::-1], indices[::-1], epoch=2)
    assert batch.num_targets == 2
    assert batch.indices.tolist() == [5, 0, 9]
    for view, expected, turned in zip(
        batch.views, to_batch(made, VIEWS).views, of_pillow.views, strict=True
    ):
        assert torch.equal(view, expected)
        assert torch.equal(turned.flip(0), expected)  # neighbours in a batch change nothing
    assert not torch.equal(multi_crop(images, indices, epoch=3).views[0], batch.views[0])
