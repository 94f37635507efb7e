"""Archives are read like folders, and hostile or damaged ones do no harm."""

import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from drawn import fill, opened, png, same

from swav.data.sources import archives
from swav.data.sources.listing import BadFile
from swav.data.sources.open import splits

NAMES = ["cat/1.png", "cat/2.png", "dog/1.png"]


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    mode = {".tar": "w", ".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w:gz")
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            add(archive, name, content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes, **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
def test_an_archive_is_read_like_the_folder(tmp_path: Path, suffix: str):
    folder = opened(fill(tmp_path / "photos", NAMES))
    members = {f"photos/{name}": (tmp_path / "photos" / name).read_bytes() for name in NAMES}
    path = pack(tmp_path / f"a{suffix}", dict(reversed(members.items())) | {"photos/x.txt": b"x"})
    packed = opened(path)
    assert list(packed.names) == [f"photos/{name}" for name in NAMES]
    assert packed.classes == ("cat", "dog")
    assert packed.labels.tolist() == [0, 0, 1]
    assert same(packed, folder)
    assert same(pickle.loads(pickle.dumps(packed)), folder)
    assert same(packed.load(), folder)
    assert splits(str(path)) == ()


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_an_archive_has_parts(tmp_path: Path, suffix: str):
    names = ["./d/train/b/1.png", "./d/train/a/1.png", "./d/test/b/1.png"]
    path = pack(tmp_path / f"a{suffix}", {name: png(seed) for seed, name in enumerate(names)})
    assert splits(str(path)) == ("train", "test")
    assert opened(path).labels.tolist() == [0, 1]
    test = opened(path, split="test")
    assert len(test) == 1
    assert torch.equal(test[0], opened(path, split="test")[0])


def test_hostile_members_are_named_and_nothing_is_written(tmp_path: Path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "good.png", png())
        for name in ("../up.png", "/absolute.png", "a/../../up.png"):
            add(archive, name, png())
        add(archive, "link.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "hard.png", b"", type=tarfile.LNKTYPE, linkname="good.png")
        add(archive, "pipe.png", b"", type=tarfile.FIFOTYPE)
        add(archive, "empty.png", b"")
    pictures = opened(path, max_bad_fraction=0.9)
    assert list(pictures.names) == ["good.png"]
    assert pictures.load().pixels is not None
    assert {bad.name: bad.reason for bad in pictures.bad_files} == {
        "../up.png": "its name leads out of the archive",
        "/absolute.png": "its name leads out of the archive",
        "a/../../up.png": "its name leads out of the archive",
        "link.png": "a link, not a file",
        "hard.png": "a link, not a file",
        "pipe.png": "not a regular file",
        "empty.png": "the file is empty",
    }
    assert os.listdir(tmp_path) == ["inside"]
    assert os.listdir(inside) == ["a.tar"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_cut_archive_keeps_what_is_whole(tmp_path: Path, suffix: str):
    members = {f"{place}.png": png(place, height=100, width=100) for place in range(4)}
    path = pack(tmp_path / f"a{suffix}", members)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    pictures = opened(path, max_bad_fraction=0.9)
    assert list(pictures.names) in (["0.png"], ["0.png", "1.png"])
    assert pictures.load().pixels is not None
    assert any("rest is lost" in bad.reason for bad in pictures.bad_files)


def test_a_damaged_header_inside_a_tar_does_not_pass_for_its_end(tmp_path: Path):
    path = pack(tmp_path / "a.tar", {f"{place}.png": png() for place in range(4)})
    content = bytearray(path.read_bytes())
    place = content.index(b"2.png")
    content[place : place + 9] = b"XXXXXXXXX"  # its checksum is wrong now
    path.write_bytes(content)
    pictures = opened(path, max_bad_fraction=0.9)
    assert list(pictures.names) == ["0.png", "1.png"]
    assert pictures.bad_files == [BadFile("a.tar", "damaged after '1.png': the rest is lost")]


def test_a_zip_with_wrong_bytes(tmp_path: Path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for place in range(3):
            archive.writestr(f"{place}.png", png(place))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT", content.index(b"1.png")) + 9] ^= 255
    path.write_bytes(content)
    pictures = opened(path, max_bad_fraction=0.9).load()
    assert list(pictures.names) == ["0.png", "2.png"]
    assert pictures.bad_files == [BadFile("1.png", "its checksum in the archive is wrong")]


def test_limits_of_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "_HARMLESS_BYTES", 10**5)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 10**6)
    zeros = {"a.png": bytes(2 * 10**5), "b.png": bytes(2 * 10**5)}
    with pytest.raises(ValueError, match="decompression bomb"):
        opened(pack(tmp_path / "a.zip", zeros))
    with pytest.raises(ValueError, match="decompression bomb"):
        opened(pack(tmp_path / "a.tgz", zeros))
    path = tmp_path / "b.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "good.png", png())
        add(archive, "large.png", bytes(10**6 + 1))
        monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert [bad.name for bad in opened(path, max_bad_fraction=0.9).bad_files] == ["large.png"]
    with pytest.raises(ValueError, match="more than 3 members"):
        opened(pack(tmp_path / "c.tar", {f"{place}.png": png() for place in range(4)}))
    with pytest.raises(ValueError, match=r"memory limit.*unpack it"):
        opened(pack(tmp_path / "d.tgz", {"a.png": png()}), max_memory_gib=1e-8)


def test_a_huge_extended_header_is_not_read(tmp_path: Path):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 2**40
    path = tmp_path / "a.tar"
    good = tarfile.TarInfo("good.png")
    good.size = len(png())
    padding = bytes(-len(png()) % 512)
    path.write_bytes(good.tobuf() + png() + padding + header.tobuf(tarfile.GNU_FORMAT))
    pictures = opened(path, max_bad_fraction=0.9)
    assert list(pictures.names) == ["good.png"]
    assert len(pictures.bad_files) == 1


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.npz", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 200])
def test_what_is_no_archive_is_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*(not a whole|cannot be read|no picture)"):
        opened(tmp_path / name)


def test_many_tiny_members_take_little_time(tmp_path: Path):
    one = io.BytesIO()
    with tarfile.open(fileobj=one, mode="w") as archive:
        add(archive, "a/1.png", png())
    block = one.getvalue()[: 512 + (len(png()) + 511) // 512 * 512]
    (tmp_path / "a.tar").write_bytes(block * 5000)
    assert len(opened(tmp_path / "a.tar")) == 5000


def test_a_zip_whose_directory_lies(tmp_path: Path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x.png", "large.png", "good.png"):
            archive.writestr(name, png())
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 28 : start + 30] = bytes(2)  # its first name is empty
    content[start + 30 : start + 32] = (5).to_bytes(2, "little")  # and an extra field
    content[start + 46 : start + 51] = b"\xff\xff\x01\x00\x00"
    large = content.index(b"PK\x01\x02", start + 4)
    content[large + 20 : large + 24] = b"\xfe\xff\xff\xff"  # bytes stored
    path.write_bytes(content)
    pictures = opened(path, max_bad_fraction=0.9)
    assert list(pictures.names) == ["good.png", "large.png"]
    tracemalloc.start()
    loaded = pictures.load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(loaded.names) == ["good.png"]
    assert peak < 300 * 2**20
