"""Follow docs/add-a-method.md to the letter, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def blocks() -> tuple[dict[str, str], list[str]]:
    """Return the code of the page by the first line of each block, and its commands."""
    page = (ROOT / "docs" / "add-a-method.md").read_text()
    code = re.findall(r"```python\n# (.*?)\n(.*?)```", page, flags=re.DOTALL)
    commands = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    inline = re.findall(r"`(ruff .*?)`", page)
    return dict(code), [*inline, *"".join(commands).splitlines()]


def insert(path: Path, opening: str, closing: str, lines: str) -> None:
    """Put lines at the end of a bracketed list of a file."""
    text = path.read_text()
    end = text.index(closing, text.index(opening)) + 1
    path.write_text(text[:end] + lines + text[end:])


@pytest.mark.ranks
def test_the_page_leads_to_a_method(tmp_path: Path) -> None:
    code, commands = blocks()
    for name in ("src", "tests"):
        ignored = shutil.ignore_patterns("*.pyc", "*.egg-info")  # not what numba has compiled
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    methods, tiny = tmp_path / "src/swav/methods/__init__.py", tmp_path / "tests/tiny.py"
    for name in ("src/swav/methods/centre.py", "tests/methods/test_centre.py"):
        (tmp_path / name).write_text(code[name])
    for path in (methods, tiny):
        first = code[str(path.relative_to(tmp_path))]
        path.write_text(path.read_text().replace("\nfrom ", f"\n{first}from ", 1))
    insert(methods, "__all__ = [", "\n]", code["__all__"])
    insert(methods, "MethodConfig = (", "\n)", code["MethodConfig"])
    insert(tiny, "TINY_METHODS: ", "\n}", code["TINY_METHODS"])

    def run(command: str) -> str:
        finished = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if finished.returncode:
            pytest.fail(f"{command}\n{finished.stdout}\n{finished.stderr}")
        return finished.stdout

    assert [command.split()[0] for command in commands] == ["ruff", "swav", "pytest", "pytest"]
    for command in commands:
        shown = run(command)
        assert "method centre" in shown or not command.startswith("swav")
        assert " passed" in shown or not command.startswith("pytest")
    run("pytest tests/methods/test_centre.py tests/golden -k centre")
    run("ruff check src tests")
