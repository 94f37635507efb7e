"""What a training is told before it starts about the groups that are its positives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY_METHODS, drawn, tiny_config

from swav.commands.plan import check_groups
from swav.data.positives import Positives
from swav.methods import BYOLConfig, SimCLRConfig


def test_mates_in_a_batch_are_those_of_random_batches() -> None:
    groups = np.repeat([0, 1, 2], [30, 8, 2])
    generator = np.random.default_rng(0)
    met = []
    for _ in range(4000):
        batch = groups[generator.permutation(len(groups))[:10]]
        met += [(batch == group).sum() - 1 for group in batch]
    assert Positives(groups).mates_in(10) == pytest.approx(np.mean(met), rel=0.02)


def test_methods_with_negatives_are_warned_of_large_groups(tmp_path: Path) -> None:
    pixels, labels_of = drawn()
    for number, (picture, label) in enumerate(zip(pixels, labels_of, strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / str(label) / f"{number}.png")
    config = tiny_config(str(tmp_path), method=TINY_METHODS[SimCLRConfig])
    config = replace(config, data=replace(config.data, group="folder"))
    pictures = config.data.build()
    apart, labels = check_groups(config, pictures)
    assert "simclr tells all pictures apart" in apart
    assert "the groups are the labels" in labels
    without = replace(config, method=TINY_METHODS[BYOLConfig])
    assert check_groups(without, pictures) == [labels]
