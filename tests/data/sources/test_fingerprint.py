"""The same pictures are known again wherever they lie, and others of their number are not."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
from drawn import fill, opened, png

from swav.data.sources.open import from_arrays

NAMES = [f"{kind}/{place}.png" for kind in "ab" for place in range(5)]


def test_a_copy_elsewhere_is_the_same_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "here", NAMES)
    known = opened(tmp_path / "here").fingerprint
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    for name in NAMES:
        os.utime(tmp_path / "there" / name, (0, 0))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for name in NAMES:
            archive.write(tmp_path / "here" / name, name)
    lines = [str(tmp_path / "there" / name) for name in NAMES]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert opened(tmp_path / "there").fingerprint == known
    assert opened(tmp_path / "packed.zip").fingerprint == known
    assert opened(tmp_path / "list.txt").fingerprint == known
    assert opened(tmp_path / "there", cache_gib=0.1).load().fingerprint == known


def test_other_names_sizes_and_contents_are_other_pictures(tmp_path: Path) -> None:
    fill(tmp_path, NAMES)
    known = opened(tmp_path).fingerprint
    original = (tmp_path / NAMES[3]).read_bytes()
    (tmp_path / NAMES[3]).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    contents = opened(tmp_path).fingerprint
    (tmp_path / NAMES[3]).write_bytes(png(seed=77, height=9))
    sizes = opened(tmp_path).fingerprint
    (tmp_path / NAMES[3]).write_bytes(original)
    assert opened(tmp_path).fingerprint == known
    (tmp_path / NAMES[3]).rename(tmp_path / "a/renamed.png")
    names = opened(tmp_path).fingerprint
    assert len({known, contents, sizes, names}) == 4


def test_pictures_left_out_while_decoding_still_count(tmp_path: Path) -> None:
    fill(tmp_path, NAMES)
    (tmp_path / NAMES[0]).write_bytes(b"nothing")
    lazy = opened(tmp_path, max_bad_fraction=0.5)
    assert len(lazy.load()) == len(NAMES) - 1
    assert lazy.load().fingerprint == lazy.fingerprint


def test_every_array_in_memory_is_compared() -> None:
    pictures = np.zeros((3000, 2, 2), dtype=np.uint8)
    known = from_arrays(pictures.copy()).fingerprint
    for row in (0, 1, 2, 2998):
        changed = pictures.copy()
        changed[row, 0, 0] = 1
        assert from_arrays(changed).fingerprint != known
