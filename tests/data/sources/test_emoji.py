"""The built-in pictures are those that the script builds, and what the design says of them."""

import ast
import hashlib
from pathlib import Path

import numpy as np

import swav.data.sources.named
from swav.data.sources.open import SourceConfig, splits

ROOT = Path(__file__).parents[3]


def test_the_archive_is_the_one_that_the_script_builds():
    tree = ast.parse((ROOT / "scripts" / "build_emoji.py").read_text())
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    archive = Path(swav.data.sources.named.__file__).with_name("emoji.zip").read_bytes()
    assert hashlib.sha256(archive).hexdigest() == constants["ARCHIVE_SHA256"]
    assert len(archive) < 2.5e6


def test_1906_pictures_of_64_pixels_in_9_categories():
    emoji = SourceConfig(data="emoji").build().load()
    assert emoji.pixels is not None
    assert emoji.pixels.shape == (1906, 3, 64, 64)
    assert not emoji.bad_files
    categories = [name.split("/")[0] for name in emoji.names]
    assert [emoji.classes[label] for label in emoji.labels] == categories
    assert len(set(categories)) == len(emoji.classes) == 9
    assert len({tuple(name.split("/")[:2]) for name in emoji.names}) == 98
    assert len(set(emoji.names)) == 1906
    assert splits("emoji") == ()


def test_they_are_drawn_on_white_nearly_all_different():
    emoji = SourceConfig(data="emoji").build().load()
    assert emoji.pixels is not None
    corners = emoji.pixels[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].numpy()
    assert (np.median(corners, axis=(1, 2)) >= 250).mean() > 0.9
    # some territories share a flag, and some people a drawing
    assert len({picture.numpy().tobytes() for picture in emoji.pixels}) == 1892


def test_the_notice_names_both_licences():
    notice = (ROOT / "NOTICE").read_text()
    assert "Noto Emoji" in notice
    assert "Copyright (c) 2013 Cal Henderson" in notice
