"""Sets known by name, and what is said of a DATA that is not understood."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from drawn import fill, opened, png

from swav.data.sources.open import SourceConfig, splits

RNG = np.random.default_rng(0)


def test_digits():
    digits = opened("digits")
    assert digits.facts().num_images == 1797
    assert digits.classes == tuple("0123456789")
    assert (int(digits.pixels.min()), int(digits.pixels.max())) == (0, 255)
    assert opened("digits", channels=1).pixels.shape == (1797, 1, 8, 8)


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


def test_a_set_of_torchvision(tmp_path: Path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    drawings = RNG.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for part, kept in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        labels = np.arange(5, dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(drawings[kept]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels[kept]))
    data = f"fashion-mnist:{tmp_path}"
    assert splits(data) == ("train", "test")
    train, test = opened(data, channels=1), opened(data, split="test")
    np.testing.assert_array_equal(train.pixels[:, 0].numpy(), drawings[:3])
    assert test.labels.tolist() == [3, 4]
    assert test.classes[3] == "Dress"


def test_stl10_trains_on_all_that_is_not_for_testing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(sets.STL10, "_check_integrity", lambda _: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = RNG.integers(0, 256, (5, 3, 96, 96), dtype=np.uint8)
    for part, kept in (("train", slice(0, 2)), ("unlabeled", slice(2, 5))):
        (folder / f"{part}_X.bin").write_bytes(pixels[kept].transpose(0, 1, 3, 2).tobytes())
    (folder / "train_y.bin").write_bytes(bytes([3, 1]))
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\n")
    everything, labelled = opened(f"stl10:{tmp_path}"), opened(f"stl10:{tmp_path}", split="train")
    np.testing.assert_array_equal(everything.pixels.numpy(), pixels)
    assert everything.labels is None
    assert labelled.labels.tolist() == [2, 0]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "fashion-mnist", "mnist"])
def test_missing_files_are_not_downloaded(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=r"nothing is downloaded.*download=True"):
        opened(f"{name}:{tmp_path}")
    with pytest.raises(ValueError, match="there is no folder"):
        opened(f"{name}:{tmp_path / 'missing'}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("", "DATA ''"),
        ("emojis", "Did you mean emoji?"),
        ("cifra10:/data", "Did you mean cifar10:/data?"),
        ("cifar10", "cifar10:FOLDER"),
        ("{folder}/fotos", "Did you mean {folder}/photos?"),
        ("{folder}/nothing/like/it", "is no file"),
    ],
)
def test_data_that_is_not_understood(tmp_path: Path, data: str, hint: str):
    fill(tmp_path, ["photos/a.png"])
    data, hint = (text.replace("{folder}", str(tmp_path)) for text in (data, hint))
    for ask in (opened, splits):
        with pytest.raises(ValueError, match="DATA is one of") as caught:
            ask(data)
        assert hint in str(caught.value)
        assert ".tar" in str(caught.value)


def test_folders_without_pictures_say_what_they_hold(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no picture: it is empty"):
        opened(tmp_path)
    (tmp_path / "a.heic").touch()
    with pytest.raises(ValueError, match=r"\.heic \(1\)\. Pictures end in"):
        opened(tmp_path)
    (tmp_path / "a.png").write_bytes(png())
    assert list(opened(tmp_path / "a.png").names) == ["a.png"]
    with pytest.raises(ValueError, match="of no kind that is known"):
        opened(tmp_path / "a.heic")


@pytest.mark.parametrize("option", [{"channels": 0}, {"max_bad_fraction": 1.0}])
def test_settings_out_of_range(option: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(option))):
        SourceConfig(data="emoji", **option)
