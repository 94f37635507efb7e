"""Every command and every line of Python of the README and the docs runs, with a short budget."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forked import swav
from PIL import Image

import swav as package
from swav.data.sources.open import SourceConfig
from swav.recipes import make_config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *(ROOT / f"docs/{name}.md" for name in ("index", "data-formats", "recipes")))
PAGES += (ROOT / "docs/evaluation.md", ROOT / "docs/small-data.md")
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.DOTALL)
LINES = [
    line.split(" #")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.startswith(("swav ", "torchrun "))
]
COMMANDS = list(dict.fromkeys(LINES))  # pages repeat the README's
LONG = "swav demo"
SMALL_CROPS = "2x16,4x8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with `photos/`: two classes of small pictures, and what earlier commands made."""
    here = tmp_path_factory.mktemp("readme")
    generator = np.random.default_rng(0)
    for label in ("dark", "light"):
        (here / "photos" / label).mkdir(parents=True)
        for number in range(520):
            low = 0 if label == "dark" else 128
            pixels = generator.integers(low, low + 128, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "photos" / label / f"{number}.png")
    Image.fromarray(pixels).save(here / "one.jpg")
    return here


def run(command: str, folder: Path) -> None:
    """Run a command for one epoch of small views; torchrun as it is, ``swav`` without imports."""
    program, *words = shlex.split(command)
    words = ["0" if word == "0,1" else word for word in words]  # one seed
    if {"train", "ablate"} & set(words) and "--dry-run" not in words:
        words += ["--epochs", "1", "--optim.batch-size", "256", "--crops", SMALL_CROPS]
    if program == "swav":
        done = swav(*words, folder=folder)
        assert done.code == 0, done.stderr[-3000:]
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", *words]
    ended = subprocess.run(
        torchrun, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_the_readme_is_read():
    assert LONG in COMMANDS
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != LONG])
def test_command(command, folder):
    run(command, folder)


@pytest.mark.slow
def test_demo(tmp_path):
    run(LONG, tmp_path)
    assert list(tmp_path.glob("runs/*/report.html"))


def test_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    config = make_config("auto", SourceConfig(data="digits").build())
    config = replace(
        config,
        epochs=1,
        workers=0,
        data=replace(config.data, data="digits"),
        views=config.views.with_crops(SMALL_CROPS),
    )
    monkeypatch.setattr(package, "train", partial(package.train, config=config))
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, str(README), "exec"), {})
