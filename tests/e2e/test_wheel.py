"""The wheel that a stranger installs: complete, small, and enough for a whole run."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).parents[2]
MOST_MEGABYTES = 11
"""Of a wheel of 9.9, of which nearly all are the built-in pictures."""
SHORT_DEMO = """
from dataclasses import replace

import swav.commands.demo as demo

whole = demo.make_config("demo")
short = replace(whole, epochs=1, views=whole.views.with_crops("2x16,4x8"), evaluate_at_end=False)
demo.make_config = lambda _: short

from swav.cli import main

raise SystemExit(main(["demo", "--out", "run"]))
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def called(*words: str | Path, folder: Path) -> str:
    """Return what a command prints; the sources are nowhere on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, words)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    called(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
        *("--wheel-dir", folder, REPOSITORY),
        folder=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_small_and_complete(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_MEGABYTES * 1e6
    source = REPOSITORY / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "swav").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected


def test_a_stranger_installs_it_and_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    called(
        *(python, "-m", "pip", "install", "--quiet", "--no-compile"),
        *("--constraint", REPOSITORY / "constraints.txt", wheel),
        folder=tmp_path,
    )
    where = called(python, "-c", "import swav; print(swav.__file__)", folder=tmp_path)
    assert where.startswith(str(tmp_path / "venv"))
    assert "demo" in called(tmp_path / "venv/bin/swav", "--help", folder=tmp_path)
    out = called(python, "-c", SHORT_DEMO, folder=tmp_path)
    assert out.splitlines()[-1] == "run/report.html"
    assert (tmp_path / "run/report.html").stat().st_size > 10_000
