"""The cache: the same pictures, decoded once by whoever asks first, never more than fit."""

import multiprocessing

import numpy as np
import torch
from PIL import Image

from swav.data.loader import StepViews, loader
from swav.data.sources.cache import Cached
from swav.data.sources.decode import Decoded
from swav.data.sources.open import SourceConfig, open_source
from swav.data.sources.readers import Reader
from swav.data.views.crops import CropGroup, ViewsConfig

SIZES = [(6, 7), (8, 5), (3, 4), (9, 9)]


class Counting(Reader):
    """Pictures by number, and how often each was decoded."""

    def __init__(self) -> None:
        self.asked = multiprocessing.get_context("fork").Array("i", len(SIZES))

    def __len__(self) -> int:
        return len(SIZES)

    def picture(self, row: int, channels: int) -> torch.Tensor:
        self.asked[row] += 1
        height, width = SIZES[row]
        values = torch.arange(channels * height * width).remainder(251) + row
        return values.to(torch.uint8).view(channels, height, width)

    def reduced(self, row, channels, _reduction) -> Decoded:
        height, width = SIZES[row]
        return Decoded(self.picture(row, channels), (2 * height, 2 * width), 2)

    def size(self, row: int) -> tuple[int, int]:
        return SIZES[row]


def num_bytes(rows, channels: int = 3) -> int:
    return sum(channels * height * width for height, width in (SIZES[row] for row in rows))


def test_a_picture_is_decoded_once_and_comes_back_as_it_was():
    reader = Counting()
    cached = Cached(reader, max_bytes=10_000, channels=3)
    first = [cached.reduced(row, 3, None) for row in range(4)]
    again = [cached.reduced(row, 3, None) for row in range(4)]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert one[1:] == other[1:]
    assert list(reader.asked) == [1, 1, 1, 1]


def test_what_does_not_fit_is_decoded_each_time():
    reader = Counting()
    cached = Cached(reader, max_bytes=num_bytes([0, 2]), channels=3)
    for _ in range(3):
        for row in range(4):
            assert torch.equal(
                cached.reduced(row, 3, None).pixels, Counting().reduced(row, 3, None).pixels
            )
    assert list(reader.asked) == [1, 3, 1, 3]


def test_forked_processes_share_it():
    reader = Counting()
    cached = Cached(reader, max_bytes=10_000, channels=1)
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        process = context.Process(target=lambda: [cached.reduced(row, 1, None) for row in (0, 3)])
        process.start()
        process.join()
        assert process.exitcode == 0
    expected = Counting().reduced(3, 1, None).pixels
    assert torch.equal(cached.reduced(3, 1, None).pixels, expected)
    assert list(reader.asked) == [1, 0, 0, 1]


def test_batches_are_the_same_with_and_without(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(8):
        values = generator.integers(0, 256, (40, 30 + index, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"{index}.jpg")
    views = ViewsConfig(groups=(CropGroup(count=2, size=(8, 8), scale=(0.8, 1.0)),))
    made = []
    for gib in (0.0, 1e-5, 1.0):
        config = SourceConfig(data=str(tmp_path), cache_gib=gib, max_memory_gib=0)
        dataset = StepViews(open_source(config).load(), views, global_batch=4)
        made.append(list(loader(dataset, start_step=0, total_steps=4, workers=2)))
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            assert all(torch.equal(*both) for both in zip(one.views, two.views, strict=True))
