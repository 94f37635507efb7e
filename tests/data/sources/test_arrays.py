"""Arrays of every layout and type are the same pictures."""

import contextlib
import os
import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import opened
from PIL import Image

from swav.data.sources.open import from_arrays, splits

RNG = np.random.default_rng(0)

STACK = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def test_arrays_of_every_layout_are_the_same_pictures(tmp_path: Path):
    expected = torch.from_numpy(STACK).permute(0, 3, 1, 2)
    np.save(tmp_path / "a.npy", STACK)
    np.save(tmp_path / "b.npy", STACK.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "c.npz", pictures=STACK, labels=[0, 1, 2, 0, 1, 2])
    forms = [
        opened(tmp_path / "a.npy"),
        opened(tmp_path / "b.npy"),
        opened(tmp_path / "c.npz"),
        opened(tmp_path / "a.npy", max_memory_gib=1e-8),
        from_arrays(STACK),
        from_arrays(expected),
        from_arrays(STACK.astype(np.int64)),
        from_arrays(STACK.astype(np.uint16) * 256 + 255),
        from_arrays(STACK / np.float32(255)),
        from_arrays(STACK.astype(np.float64)),
        from_arrays([Image.fromarray(picture) for picture in STACK]),
        from_arrays(list(STACK)),
        from_arrays(Table({"image": [Image.fromarray(picture) for picture in STACK]})),
    ]
    for pictures in forms:
        assert torch.equal(torch.stack([pictures[place] for place in range(6)]), expected)
        if not pictures.in_memory and pictures is not forms[3]:
            assert torch.equal(pictures.load().pixels, expected)
    assert forms[2].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert forms[0].labels is None


class Table:
    """What is used of a Hugging Face data set."""

    def __init__(self, columns: dict[str, list[object]]) -> None:
        self.columns = columns
        self.column_names = list(columns)
        names = type("ClassLabel", (), {"names": ["cat", "dog"]})()
        self.features = {"label": names}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: int | str) -> object:
        if isinstance(key, str):
            return self.columns[key]
        return {name: values[key] for name, values in self.columns.items()}


def test_labels_from_python():
    assert from_arrays(STACK, list("bababb")).labels.tolist() == [1, 0, 1, 0, 1, 1]
    assert from_arrays(STACK, torch.tensor([3, 0, 0, 0, 0, 0])).classes == ("0", "1", "2", "3")
    images = [Image.fromarray(picture) for picture in STACK]
    table = from_arrays(Table({"img": images, "label": [1, 0, 0, 1, 1, 1]}))
    assert table.classes == ("cat", "dog")
    assert table.labels.tolist() == [1, 0, 0, 1, 1, 1]
    for wrong in ([1, 2], [0.5] * 6, [-1] * 6):
        with pytest.raises(ValueError, match="labels of"):
            from_arrays(STACK, wrong)


def test_grey_arrays_become_colour_and_back_as_files_do():
    grey = from_arrays(STACK, channels=1)
    for place, picture in enumerate(STACK):
        expected = np.asarray(Image.fromarray(picture).convert("L"))
        np.testing.assert_array_equal(grey[place][0].numpy(), expected)
    colour = from_arrays(STACK[..., 0])
    np.testing.assert_array_equal(colour.pixels[:, 2].numpy(), STACK[..., 0])


def test_any_number_of_channels():
    many = RNG.integers(0, 256, (4, 8, 9, 5), dtype=np.uint8)
    assert torch.equal(
        from_arrays(many, channels=5).pixels, torch.from_numpy(many).permute(0, 3, 1, 2)
    )
    with pytest.raises(ValueError, match="5"):
        from_arrays(many)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 5)), r"shape \(4, 5\)"),
        (np.zeros((0, 5, 5, 3)), "shape"),
        (np.zeros((4, 5, 5), dtype=complex), "complex"),
        (np.array([[["a"]]]), "<U1"),
    ],
)
def test_arrays_that_are_no_pictures(values: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        from_arrays(values)


def test_values_out_of_range_are_named():
    with pytest.raises(ValueError, match="from -3"):
        from_arrays(STACK.astype(np.float32) - 3 - STACK.min()).load()
    with pytest.raises(ValueError, match="to 1000"):
        from_arrays(np.full((2, 3, 3), 1000)).load()


def test_parts_of_an_array_file(tmp_path: Path):
    labels = np.array([[0], [1], [1]])
    np.savez(
        tmp_path / "m.npz",
        train_images=STACK[:3],
        train_labels=labels,
        test_images=STACK[3:],
        test_labels=labels[::-1],
    )
    assert splits(str(tmp_path / "m.npz")) == ("train", "test")
    assert opened(tmp_path / "m.npz").labels.tolist() == [0, 1, 1]
    assert opened(tmp_path / "m.npz", split="test").labels.tolist() == [1, 1, 0]


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_no_pickle_is_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    array = np.array([Bomb(), None], dtype=object)
    with open(name, "wb") as file:
        if name == "a.npy":
            np.save(file, array, allow_pickle=True)
        else:
            np.savez(file, pictures=array)
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        opened(name)
    Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        opened(name)
    assert not Path("canary").exists()


def test_an_array_file_takes_no_more_memory_than_is_allowed(tmp_path: Path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, pictures=np.zeros((2000, 256, 256, 1), np.uint8), labels=[0] * 2000)
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb.npz: pictures takes 0\.12 GiB, .* 0\.1, .*\.npy"):
        opened(path, max_memory_gib=0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20
    assert len(opened(path, channels=1, max_memory_gib=0.2)) == 2000


def test_labels_are_named_only_where_there_are_pictures():
    labels = np.full(6, 20261124)
    labels[2:] = 10**12
    started = time.process_time()
    pictures = from_arrays(STACK, labels)
    assert time.process_time() - started < 1
    assert pictures.classes == ("20261124", "1000000000000")
    assert pictures.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert from_arrays(STACK, [0, 2, 2, 0, 0, 4]).classes == ("0", "1", "2", "3", "4")


def test_sixteen_bits_that_hold_bytes_are_bytes(tmp_path: Path):
    np.save(tmp_path / "a.npy", STACK.astype(np.uint16))
    expected = torch.from_numpy(STACK).permute(0, 3, 1, 2)
    for pictures in (
        opened(tmp_path / "a.npy"),
        from_arrays(STACK.astype(np.uint16)),
        from_arrays(list(STACK.astype(np.uint16))),
    ):
        assert torch.equal(pictures.load().pixels, expected)
    dark = STACK.astype(np.uint16)
    dark[3] = 40_000  # one picture says what the others are
    assert from_arrays(dark).load().pixels[[0, 3]].unique().tolist() == [0, 156]


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_arrays_are_refused_in_our_words(tmp_path: Path, name: str):
    path = tmp_path / name
    np.save(path, STACK) if name == "a.npy" else np.savez_compressed(path, pictures=STACK)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in generator.integers(0, min(len(content), 400), generator.integers(1, 6)):
            content[place] = generator.integers(0, 256)
        path.write_bytes(content[: generator.integers(1, len(content) + 1)])
        with contextlib.suppress(ValueError):
            opened(path).load()


HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (((",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999999, 4, 4)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 4)}",
    "{'descr': '|V4', 'fortran_order': False, 'shape': (2, 4, 4)}",
    "{'descr': [[[[", "'" * 50, "(" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_that_numpy_cannot_read(tmp_path: Path, header: str):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(99)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("pictures.npy", content)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=name):
            opened(tmp_path / name)


@pytest.mark.parametrize(("offset", "value"), [(6, 1), (8, 99)])
def test_encrypted_and_strangely_packed_arrays(tmp_path: Path, offset: int, value: int):
    np.savez(tmp_path / "a.npz", pictures=STACK)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        content[content.index(signature) + offset + shift] = value
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as arrays"):
        opened(tmp_path / "a.npz")
