"""How alike views are: known answers, and the definition written as loops."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image

from swav.data.sources.open import SourceConfig, from_arrays
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views
from swav.data.views.view_distance import distance_within

PLAIN = AugmentConfig(jitter=0.0, grey=0.0, blur=0.0)
GROUP = CropGroup(count=2, size=(16, 16), scale=(0.2, 1.0), augment=PLAIN)
JITTERED = replace(GROUP, augment=AugmentConfig(blur=0.0))


def noise(num: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 24, 24, 3), dtype=np.uint8)


def flat(num: int) -> np.ndarray:
    colours = np.random.default_rng(0).integers(0, 256, (num, 1, 1, 3), dtype=np.uint8)
    return np.tile(colours, (1, 24, 24, 1))


def test_flat_colours_are_known_by_any_crop_and_copies_by_none() -> None:
    assert distance_within(from_arrays(flat(40)), GROUP) < 1e-3
    copies = from_arrays(np.repeat(noise(1), 128, axis=0))
    assert distance_within(copies, JITTERED) == pytest.approx(1, abs=0.15)
    black = from_arrays(np.zeros((8, 24, 24, 3), np.uint8))
    assert distance_within(black, GROUP) == 1


def test_it_is_the_mean_distance_within_over_the_mean_between() -> None:
    pictures = from_arrays(noise(12))
    indices = np.arange(12)
    shown = PictureBatch([pictures.reduced(place, None) for place in range(12)])
    views = ViewsConfig(groups=(replace(GROUP, count=8),))
    made = make_byte_views(shown, indices, views, seed=3, epoch=0).views
    cells = [
        view.double().numpy().reshape(12, 3, 4, 4, 4, 4).mean(axis=(3, 5)).reshape(12, -1)
        for view in made
    ]
    distances: dict[bool, list[float]] = {True: [], False: []}
    for one, other in product(range(12), repeat=2):
        for first, second in product(range(8), repeat=2):
            if (one, first) != (other, second):
                distance = ((cells[first][one] - cells[second][other]) ** 2).sum()
                distances[one == other].append(float(distance))
    expected = np.mean(distances[True]) / np.mean(distances[False])
    assert distance_within(pictures, GROUP, seed=3) == pytest.approx(expected)


def test_broken_files_are_left_out(tmp_path) -> None:
    for number, picture in enumerate(flat(6)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "6.png").write_bytes(b"broken")
    pictures = SourceConfig(data=str(tmp_path), max_bad_fraction=0.5).build()
    assert distance_within(pictures, GROUP) < 1e-3
