"""Each photometric operation against torchvision, their order, and how often they happen."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import ImageFilter
from scipy import stats

from swav.data.views import augment
from swav.data.views.augment import AugmentConfig, ColourParams, draw_colour_params

FACTORS = torch.tensor([0.2, 0.7, 1.0, 1.4, 1.8])
SHIFTS = torch.tensor([-0.5, -0.2, 0.0, 0.13, 0.4])


def drawn_pictures(channels: int = 3, batch: int = 5, size: tuple[int, int] = (12, 9)):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(batch, channels, *size, generator=generator)
    pictures[0, :, 0] = 0.4  # without colour
    pictures[1, :, 1] = torch.eye(3)[:1].T if channels == 3 else 1.0
    pictures[:, :, 2, 0] = 0.0
    pictures[:, :, 2, 1] = 1.0
    return pictures


def each(operation, pictures, values) -> torch.Tensor:
    return torch.stack(
        [operation(picture, float(value)) for picture, value in zip(pictures, values, strict=True)]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness(channels):
    pictures = drawn_pictures(channels)
    expected = each(tv.adjust_brightness, pictures, FACTORS)
    found = augment.brightness(pictures, FACTORS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_contrast_of_one_channel():
    pictures = drawn_pictures(1)
    expected = each(tv.adjust_contrast, pictures, FACTORS)
    found = augment.contrast(pictures, FACTORS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["contrast", "saturation"])
def test_contrast_and_saturation(name, monkeypatch):
    """Torchvision takes 0.2989 for red, we 0.299 as ITU-R 601 and Pillow have it."""
    pictures = drawn_pictures()
    theirs = {"contrast": tv.adjust_contrast, "saturation": tv.adjust_saturation}[name]
    ours = {"contrast": augment.contrast, "saturation": augment.saturation}[name]
    expected = each(theirs, pictures, FACTORS)
    torch.testing.assert_close(ours(pictures, FACTORS), expected, rtol=0, atol=1e-4)
    monkeypatch.setattr(augment, "luma", tv.rgb_to_grayscale)
    torch.testing.assert_close(ours(pictures, FACTORS), expected, rtol=0, atol=1e-5)


def test_grey():
    pictures = drawn_pictures()
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    expected = (pictures.double() * weights).sum(dim=1, keepdim=True).float()
    torch.testing.assert_close(augment.luma(pictures), expected, rtol=0, atol=1e-6)
    theirs = tv.rgb_to_grayscale(pictures)
    torch.testing.assert_close(augment.luma(pictures), theirs, rtol=0, atol=1.1e-4)
    one = drawn_pictures(1)
    assert torch.equal(augment.luma(one), one)


def test_hue():
    pictures = drawn_pictures()
    expected = each(tv.adjust_hue, pictures, SHIFTS)
    torch.testing.assert_close(augment.hue(pictures, SHIFTS), expected, rtol=0, atol=1e-5)


def test_solarise():
    pictures = drawn_pictures()
    pictures[0, 0, 5, 5] = 0.5
    expected = tv.solarize(pictures, 0.5)
    torch.testing.assert_close(augment.solarise(pictures), expected, rtol=0, atol=1e-5)


RADII = np.array([0.1, 0.5, 1.0, 1.7, 2.0], dtype=np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_blur_is_pillows(channels):
    """Six pixels from the border and on: it puts the border's pixel beyond it before each box."""
    pictures = torch.randint(0, 256, (5, channels, 30, 40)).to(torch.uint8)
    found = augment.blur(pictures / 255, torch.from_numpy(RADII)) * 255
    for picture, radius, blurred in zip(pictures, RADII.tolist(), found, strict=True):
        image = tv.to_pil_image(picture).filter(ImageFilter.GaussianBlur(radius))
        difference = (blurred - tv.pil_to_tensor(image)).abs()[:, 6:-6, 6:-6]
        assert difference.mean() <= 1.2  # it rounds six times
        assert difference.max() <= 3


def test_blur_sums_over_pairs_of_pixels_and_the_border_stands_for_all_beyond_it():
    pictures = drawn_pictures(3)
    found = augment.blur(pictures, torch.from_numpy(RADII))
    kernels = [augment.blur_kernel(radius) for radius in RADII.tolist()]
    for picture, half, blurred in zip(pictures.double().numpy(), kernels, found, strict=True):
        height, width = picture.shape[1:]
        taps = [(abs(offset), offset) for offset in range(1 - len(half), len(half))]
        expected = np.zeros_like(picture)
        for (from_y, dy), (from_x, dx) in itertools.product(taps, taps):
            rows = picture[:, np.clip(np.arange(height) + dy, 0, height - 1)]
            columns = np.clip(np.arange(width) + dx, 0, width - 1)
            expected += half[from_y].item() * half[from_x].item() * rows[:, :, columns]
        np.testing.assert_allclose(blurred, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("radius", [*RADII.tolist(), 7.3])
def test_weights_of_the_blur_have_the_variance_of_the_gaussian(radius):
    half = augment.blur_kernel(radius).astype(np.float64)
    assert 2 * half.sum() - half[0] == pytest.approx(1, abs=1e-6)
    variance = 2 * (half * np.arange(len(half)) ** 2).sum()
    assert variance == pytest.approx(radius**2, rel=1e-5)


def colours(batch: int, **changes) -> ColourParams:
    """Return parameters that change nothing, but for ``changes``."""
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


def test_nothing_drawn_changes_nothing_and_no_picture_is_written_to():
    pictures = drawn_pictures()
    before = pictures.clone()
    assert torch.equal(augment.augment(pictures, colours(5)), pictures)
    everything = np.ones(5, dtype=np.bool_)
    drawn = colours(5, jitter=everything, grey=everything, blur=everything, solarise=everything)
    augment.augment(pictures, drawn)
    assert torch.equal(pictures, before)


def test_every_picture_has_its_own_order():
    pictures = drawn_pictures()
    generator = np.random.default_rng(3)
    order = np.stack([generator.permutation(4) for _ in range(5)])
    factors = torch.stack([FACTORS, FACTORS.flip(0), FACTORS.roll(2), SHIFTS], dim=1).numpy()
    jitter = np.array([True, True, False, True, True])
    found = augment.augment(pictures, colours(5, jitter=jitter, order=order, factors=factors))
    operations = (augment.brightness, augment.contrast, augment.saturation, augment.hue)
    for row in range(5):
        expected = pictures[row : row + 1]
        for place in order[row].tolist() if jitter[row] else ():
            factor = torch.from_numpy(factors[row : row + 1, place])
            expected = operations[place](expected, factor)
        torch.testing.assert_close(found[row], expected[0], rtol=0, atol=1e-6)


def test_grey_then_blur_then_solarise_come_after_the_jitter():
    pictures = drawn_pictures()
    always = np.ones(5, dtype=np.bool_)
    factors = torch.stack([FACTORS, FACTORS, FACTORS, SHIFTS], dim=1).numpy()
    drawn = colours(5, jitter=always, factors=factors, grey=always, blur=always, solarise=always)
    expected = augment.hue(
        augment.saturation(
            augment.contrast(augment.brightness(pictures, FACTORS), FACTORS), FACTORS
        ),
        SHIFTS,
    )
    expected = augment.luma(expected).expand(-1, 3, -1, -1)
    expected = augment.solarise(augment.blur(expected, torch.ones(5)))
    torch.testing.assert_close(augment.augment(pictures, drawn), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_colour_means_nothing_without_red_green_and_blue(channels):
    pictures = drawn_pictures(channels)
    always = np.ones(5, dtype=np.bool_)
    factors = torch.stack([FACTORS, FACTORS, FACTORS, SHIFTS], dim=1).numpy()
    drawn = colours(5, jitter=always, factors=factors, grey=always)
    expected = augment.contrast(augment.brightness(pictures, FACTORS), FACTORS)
    assert torch.equal(augment.augment(pictures, drawn), expected)


def test_a_picture_does_not_depend_on_its_batch():
    pictures = drawn_pictures(batch=16)
    uniform = np.random.default_rng(0).random((16, augment.NUM_DRAWS))
    strong = AugmentConfig(jitter=1, grey=0.3, blur=1, solarise=0.3)
    whole = augment.augment(pictures, draw_colour_params(strong, uniform))
    for share in (slice(0, 1), slice(5, 9)):
        alone = augment.augment(pictures[share], draw_colour_params(strong, uniform[share]))
        torch.testing.assert_close(alone, whole[share], rtol=0, atol=1e-6)


NUM_PICTURES = 8000


@pytest.fixture(scope="module")
def published() -> ColourParams:
    uniform = np.random.default_rng(1).random((NUM_PICTURES, augment.NUM_DRAWS))
    return draw_colour_params(AugmentConfig(solarise=0.2), uniform)


@pytest.mark.parametrize(
    ("name", "chance"), [("jitter", 0.8), ("grey", 0.2), ("blur", 0.5), ("solarise", 0.2)]
)
def test_it_happens_as_often_as_published(published, name, chance):
    happened = int(vars(published)[name].sum())
    assert stats.binomtest(happened, NUM_PICTURES, chance).pvalue > 1e-4


@pytest.mark.parametrize(
    ("column", "low", "high"), [(0, 0.2, 1.8), (1, 0.2, 1.8), (2, 0.2, 1.8), (3, -0.2, 0.2)]
)
def test_factors_are_uniform(published, column, low, high):
    values = published.factors[:, column].astype(np.float64)
    assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-4


def test_radii_are_uniform_and_orders_equally_likely(published):
    radii = published.blur_radius.astype(np.float64)
    assert stats.kstest(radii, "uniform", args=(0.1, 1.9)).pvalue > 1e-4
    _, counts = np.unique(published.order, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_strength_above_one_never_turns_negative():
    uniform = np.random.default_rng(1).random((100, augment.NUM_DRAWS))
    factors = draw_colour_params(AugmentConfig(brightness=1.5), uniform).factors[:, 0]
    assert factors.min() >= 0
    assert factors.max() > 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip": 1.2}, r"flip 1\.2 is a probability"),
        ({"blur": -0.1}, r"blur -0\.1 is a probability"),
        ({"hue": 0.6}, r"hue 0\.6 must be from 0 to 0\.5"),
        ({"blur_radius": (2.0, 1.0)}, "two rising positive numbers"),
        ({"blur_radius": (0.0, 1.0)}, "two rising positive numbers"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**wrong)
