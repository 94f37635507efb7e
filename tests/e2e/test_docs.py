"""What the pages of docs/ name exists, and the site is built without warnings."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| `(src/swav/[\w/]+\.py)` \| `([\w.]+)` \|")
NAMES = ROW.findall((ROOT / "docs/paper-to-code.md").read_text(encoding="utf-8"))


def names_of(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Return the functions and classes of a file, methods as ``Class.method``."""
    names = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            names |= names_of(node.body, f"{prefix}{node.name}.")
    return names


def test_the_table_is_read():
    assert len(NAMES) >= 20


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_each_part_of_the_paper_is_where_the_table_says(file, name):
    assert name in names_of(ast.parse((ROOT / file).read_text(encoding="utf-8")).body)


def test_the_site_is_built_without_warnings(tmp_path):
    # in a process of its own: here types are checked, by functions that autodoc would describe
    words = ["-W", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path)]
    built = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "five-minute tour" in (tmp_path / "index.html").read_text(encoding="utf-8")
