"""The built-in photos are those that the script builds, without those that it leaves out."""

import hashlib
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import swav.data.sources.named
from swav.data.sources.open import SourceConfig, splits

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "build_clothes.py"
ARCHIVE = Path(swav.data.sources.named.__file__).with_name("clothes.zip")
SOURCE = os.environ.get("CLOTHING_DATASET_SMALL", "")
COUNTS = {
    **{"dress": 288, "hat": 147, "longsleeve": 574, "outwear": 246, "pants": 559, "shirt": 345},
    **{"shoes": 297, "shorts": 257, "skirt": 135, "t-shirt": 909},
}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_archive_is_the_one_that_the_script_builds(script):
    content = ARCHIVE.read_bytes()
    assert hashlib.sha256(content).hexdigest() == script["ARCHIVE_SHA256"]
    assert len(content) < 8e6


def test_3757_photos_in_10_classes_with_the_shorter_side_at_96_pixels():
    clothes = SourceConfig(data="clothes").build().load()
    assert len(clothes) == 3757
    assert not clothes.bad_files
    classes = [name.split("/")[0] for name in clothes.names]
    assert [clothes.classes[label] for label in clothes.labels] == classes
    assert {name: classes.count(name) for name in clothes.classes} == COUNTS
    shapes = [tuple(clothes[row].shape) for row in range(0, len(clothes), 50)]
    assert {min(shape[1:]) for shape in shapes} == {96}
    assert len({shape[1:] for shape in shapes}) > 3
    assert splits("clothes") == ()


def test_no_photo_is_there_twice():
    with ZipFile(ARCHIVE) as archive:
        names = archive.namelist()
        assert len({archive.read(name) for name in names}) == len(names)
        assert names == sorted(names)


def test_what_is_left_out_is_named_as_in_the_source_with_a_reason(script):
    left_out = script["left_out"]()
    assert sum(COUNTS.values()) + len(left_out) == 3781
    with ZipFile(ARCHIVE) as archive:
        names = set(archive.namelist())
    for name, reason in left_out.items():
        part, label, file = name.split("/")
        assert part in script["PARTS"]
        assert label in COUNTS
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.jpg", file)
        assert f"{label}/{file.removesuffix('.jpg')}.webp" not in names
        assert reason in {"face", "name", "number", "vulgar", "political", "duplicate"}


@pytest.mark.skipif(not SOURCE, reason="CLOTHING_DATASET_SMALL names no checkout of the source")
def test_the_script_builds_it_again(script, tmp_path):
    for name in script["left_out"]():
        assert (Path(SOURCE) / name).is_file()
    built = tmp_path / "clothes.zip"
    command = [sys.executable, str(SCRIPT), SOURCE, "--to", str(built)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert built.read_bytes() == ARCHIVE.read_bytes() or "not the bytes committed" in said


def test_another_source_is_refused(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--to", str(tmp_path / "clothes.zip")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "sha256" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_the_notice_names_source_and_licence():
    notice = (ROOT / "NOTICE").read_text()
    assert "https://github.com/alexeygrigorev/clothing-dataset-small" in notice
    assert "CC0 1.0" in notice


def test_a_folder_of_the_same_name_is_not_passed_over_in_silence(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clothes").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(SourceConfig(data="clothes").build()) == 3757
    assert "./clothes" in caplog.text
