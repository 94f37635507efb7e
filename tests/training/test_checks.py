"""What a training is told before it starts about its groups and its views."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import METHOD_CLASSES, TINY_METHODS, drawn, tiny_config

from swav.data.sources.groups import ImageGroups
from swav.data.sources.open import from_arrays
from swav.data.views.augment import AugmentConfig
from swav.methods import BYOLConfig, MethodConfig, RotationConfig, SimCLRConfig
from swav.training.checks import check_groups, check_views
from swav.training.plan import print_plan


def test_mates_in_a_batch_are_those_of_random_batches() -> None:
    groups = np.repeat([0, 1, 2], [30, 8, 2])
    generator = np.random.default_rng(0)
    met = []
    for _ in range(4000):
        batch = groups[generator.permutation(len(groups))[:10]]
        met += [(batch == group).sum() - 1 for group in batch]
    assert ImageGroups(groups).mates_in(10) == pytest.approx(np.mean(met), rel=0.02)


def test_methods_with_negatives_are_warned_of_large_groups(tmp_path: Path) -> None:
    pixels, labels_of = drawn()
    for number, (picture, label) in enumerate(zip(pixels, labels_of, strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / str(label) / f"{number}.png")
    config = tiny_config(str(tmp_path), method=TINY_METHODS[SimCLRConfig])
    config = replace(config, views=replace(config.views, group="folder"))
    pictures = config.data.build()
    apart, labels = check_groups(config, pictures)
    assert "simclr tells all pictures apart" in apart
    assert "(swav, deepcluster, sela, byol, barlow, vicreg)" in apart
    assert "the groups are the labels" in labels
    without = replace(config, method=TINY_METHODS[BYOLConfig])
    assert check_groups(without, pictures) == [labels]


@pytest.mark.parametrize("method", METHOD_CLASSES, ids=lambda cls: cls.name)
def test_every_method_is_planned(
    method: type[MethodConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config, pictures = tiny_config(method=TINY_METHODS[method]), from_arrays(*drawn())
    print_plan(config, pictures.facts(), pictures)
    assert f"method {method.name}\n5 epochs of 4 steps" in capsys.readouterr().out


def test_views_that_tell_no_picture_from_another_are_warned_of() -> None:
    config = tiny_config("digits")
    jittered = AugmentConfig(brightness=0.8, contrast=0.8, hue=0.2, blur=0.0)
    large = replace(config.views.groups[0], scale=(0.2, 1.0), augment=jittered)
    config = replace(config, views=replace(config.views, groups=(large,)))
    shades = np.repeat([120, 121], 32).astype(np.uint8)[:, None, None, None]
    alike = from_arrays(np.tile(shades, (1, 24, 24, 3)))
    (remark,) = check_views(config, alike)
    assert "trainings collapse. Try --views.augment.jitter 0 --views.augment.grey 0" in remark
    assert "without colour changes it is 0.00" in remark
    copies = from_arrays(
        np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8).repeat(64, 0)
    )
    (remark,) = check_views(config, copies)
    assert "larger shares of the picture" in remark
    different = from_arrays(drawn()[0])
    assert check_views(tiny_config("digits"), different) == []
    rotations = replace(config, method=TINY_METHODS[RotationConfig])
    assert check_views(rotations, alike) == []
