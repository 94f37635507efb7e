"""The evaluation transform against timm's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from swav.data.eval_transform import EvalTransform

SIZES = [(64, 64), (32, 32), (33, 50), (17, 90), (101, 7), (20, 24), (1, 1), (375, 500), (40, 25)]


def random_picture(channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def settings(channels: int, height: int, width: int, **others) -> EvalTransform:
    mean = tuple(0.3 + 0.1 * each for each in range(channels))
    std = tuple(0.2 + 0.01 * each for each in range(channels))
    return EvalTransform(input_size=(channels, height, width), mean=mean, std=std, **others)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("input_size", [(32, 32), (20, 24), (40, 25)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_equal_to_timms_transform_to_the_bit(channels, input_size, interpolation, crop_pct):
    transform = settings(channels, *input_size, interpolation=interpolation)
    transform = replace(transform, crop_pct=crop_pct)
    theirs = create_transform(
        input_size=transform.input_size,
        interpolation=interpolation,
        mean=transform.mean,
        std=transform.std,
        crop_pct=crop_pct,
        is_training=False,
    )
    pictures = [random_picture(channels, *size) for size in SIZES]
    batch = transform(pictures)
    assert batch.dtype == torch.float32
    for picture, ours in zip(pictures, batch, strict=True):
        array = picture.permute(1, 2, 0).numpy()
        image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
        assert torch.equal(theirs(image), ours)


@pytest.mark.parametrize("channels", [2, 4, 6])
@pytest.mark.parametrize("input_size", [(20, 20), (20, 24)])
def test_many_channels_are_resized_as_so_many_grey_pictures(channels, input_size):
    picture = random_picture(channels, 40, 60)
    grey = EvalTransform(input_size=(1, *input_size), mean=(0.0,), std=(1.0,))
    expected = grey([channel[None] for channel in picture])[:, 0]
    transform = EvalTransform(
        input_size=(channels, *input_size), mean=(0.0,) * channels, std=(1.0,) * channels
    )
    levels = (transform([picture])[0] - expected).abs() * 255
    assert levels.max() < 2.5  # torch and Pillow round differently


def test_a_picture_of_the_input_size_only_changes_scale():
    transform = settings(3, 20, 24)
    picture = random_picture(3, 20, 24)
    mean, std = (np.array(each)[:, None, None] for each in (transform.mean, transform.std))
    expected = (picture.numpy() / 255 - mean) / std
    np.testing.assert_allclose(transform([picture])[0], expected, atol=1e-5)


def test_a_picture_does_not_depend_on_its_batch():
    transform = settings(3, 32, 32)
    pictures = [random_picture(3, *size, seed=seed) for seed, size in enumerate(SIZES)]
    alone = torch.cat([transform([picture]) for picture in pictures])
    assert torch.equal(transform(pictures), alone)


def test_it_comes_back_from_timms_settings():
    transform = settings(1, 20, 24, interpolation="bilinear")
    written = {
        "input_size": [1, 20, 24],
        "mean": list(transform.mean),
        "std": list(transform.std),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    assert EvalTransform.from_timm(written) == transform
    zoomed = EvalTransform.from_timm(written | {"crop_pct": 0.9})
    assert zoomed == replace(transform, crop_pct=0.9)
    with pytest.raises(ValueError, match="crop_mode 'border'"):
        EvalTransform.from_timm(written | {"crop_mode": "border"})


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"3 channels for a network of 1.*--channels 1"):
        settings(1, 8, 8)([random_picture(3, 8, 8)])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"mean": (0.5,)}, "mean"),
        ({"std": (0.1, 0.1)}, "std"),
        ({"std": (0.1, 0.0, 0.1)}, "above 0"),
        ({"input_size": (3, 0, 8)}, "input_size"),
        ({"interpolation": "magic"}, "bicubic"),
    ],
)
def test_wrong_settings_are_named(wrong, named):
    right = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.1,) * 3}
    with pytest.raises(ValueError, match=named):
        EvalTransform(**right | wrong)
