"""Read when asked for or all at once, in any process: the same pictures, the same limits."""

import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import fill, opened, png, same
from torch.utils.data import DataLoader

from swav.data.sources.decode import UnreadablePicture
from swav.data.sources.pictures import Pictures


def test_loaded_or_not_the_pictures_are_the_same(tmp_path: Path):
    for seed in range(300):
        (tmp_path / f"{seed:03d}.png").write_bytes(png(seed, height=3 + seed % 5))
    lazy = opened(tmp_path)
    loaded = lazy.load()
    assert not lazy.in_memory
    assert loaded.in_memory
    assert loaded.pixels is None
    assert same(lazy, loaded)
    chosen = np.array([250, 3, 3])
    assert list(lazy.subset(chosen).names) == ["250.png", "003.png", "003.png"]
    assert same(lazy.subset(chosen), loaded.subset(chosen))
    too_much = opened(tmp_path, max_memory_gib=1e-6)
    assert too_much.load() is too_much
    with pytest.raises(IndexError):
        lazy[300]


def test_pictures_of_one_size_become_one_tensor(tmp_path: Path):
    names = [f"{kind}/{place}.png" for kind in "ab" for place in range(70)]
    lazy = opened(fill(tmp_path, names))
    loaded = lazy.load()
    assert loaded.pixels.shape == (140, 3, 4, 6)
    assert loaded.load() is loaded
    assert same(lazy, loaded)
    chosen = loaded.subset(np.array([100, 1]))
    assert torch.equal(chosen.pixels, loaded.pixels[[100, 1]])
    assert chosen.labels.tolist() == [1, 0]
    backwards = lazy.subset(np.arange(140)[::-1].copy())
    assert list(backwards.names) == list(lazy.names)[::-1]
    assert backwards.labels.tolist() == [1] * 70 + [0] * 70
    assert torch.equal(backwards[139], lazy[0])


def test_facts_come_from_headers(tmp_path: Path):
    for place, (height, width) in enumerate([(10, 20), (30, 40), (50, 60)]):
        (tmp_path / f"{place}.png").write_bytes(png(height=height, width=width)[:60])
    facts = opened(tmp_path, channels=1).facts()
    assert (facts.num_images, facts.height, facts.width, facts.channels) == (3, 30, 40, 1)
    assert (facts.num_classes, facts.in_memory) == (0, False)


def spoilt(root: Path, bad: Iterable[int], total: int = 1000) -> Path:
    content = png()
    for place in range(total):
        (root / f"{place:04d}.png").write_bytes(content)
    for place in bad:
        (root / f"{place:04d}.png").write_bytes(b"<html>")
    return root


def test_nine_bad_of_a_thousand_are_left_out(tmp_path: Path):
    bad = range(0, 900, 100)
    pictures = opened(spoilt(tmp_path, bad))
    loaded = pictures.load()
    assert list(loaded.names) == [f"{p:04d}.png" for p in range(1000) if p not in bad]
    assert [name for name, _ in loaded.bad_files] == [f"{place:04d}.png" for place in bad]
    with pytest.raises(UnreadablePicture, match=r"'0100\.png' is unreadable: a web page"):
        pictures[100]


class Faults(torch.utils.data.Dataset[str]):
    """What reading a picture says, but for single pictures that are unreadable."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> str:
        try:
            self.pictures[index]
        except UnreadablePicture:
            return ""
        except ValueError as error:
            return str(error)
        return ""


def faults(pictures: Pictures, workers: int) -> set[str]:
    fork = "fork" if workers else None
    batches = DataLoader(
        Faults(pictures), batch_size=100, num_workers=workers, multiprocessing_context=fork
    )
    return {fault for batch in batches for fault in batch} - {""}


@pytest.mark.parametrize("workers", [0, 2])
def test_eleven_bad_of_a_thousand_stop(tmp_path: Path, workers: int):
    spoilt(tmp_path, range(0, 1000, 100))
    assert not faults(opened(tmp_path), workers)  # exactly the limit
    spoilt(tmp_path, [50], total=0)
    (message,) = faults(opened(tmp_path), workers)
    assert message.startswith("11 of 1000 pictures")


def test_loading_names_the_first_of_too_many(tmp_path: Path):
    spoilt(tmp_path, range(2, 10), total=100)
    with pytest.raises(ValueError, match=r"(?s)8 of 100 .*'0002.png': a web.*max_bad_fraction"):
        opened(tmp_path).load()


def test_a_set_is_cheap_to_pickle(tmp_path: Path):
    pictures = opened(spoilt(tmp_path, [], total=500))
    pickled = pickle.dumps(pictures)
    assert len(pickled) < 500 * (8 + len("0000.png") + 16) + 4000
    assert same(pickle.loads(pickled).subset(np.arange(5)), pictures.subset(np.arange(5)))


def test_one_bad_of_a_few_chosen_ones_is_no_sample_of_the_set(tmp_path: Path):
    pictures = opened(spoilt(tmp_path, [3], total=200))
    few = pictures.subset(np.arange(10))
    assert len(few.load()) == 9
    with pytest.raises(ValueError, match="cannot be read"):
        opened(spoilt(tmp_path, range(5, 9), total=0)).subset(np.arange(10)).load()
