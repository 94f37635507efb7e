"""The file names of a run folder stand in one file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import swav
from swav.run_folder import layout

SOURCE = Path(swav.__file__).parent
NAMES = (
    *(layout.CONFIG, layout.RECORD, layout.METRICS, layout.LOG, layout.LOCK, layout.BAD_FILES),
    *(layout.CHECKPOINTS, layout.EMBEDDINGS, layout.CLUSTERS, layout.REPORT, layout.NAMES),
    *(Path(layout.VIEWS).name, layout.MAP),
)
WORDS = "|".join(map(re.escape, NAMES))
SPELLED = re.compile(rf"(?<![\w.-])(({WORDS})(?!\w)|{layout.EVALUATIONS}/)")


def names_in(code: str) -> Iterator[str]:
    """Yield the strings, docstrings left out, that spell the name of a file."""
    tree = ast.parse(code)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and SPELLED.search(node.value)
        ):
            yield f"line {node.lineno}: {node.value!r}"


def test_no_other_file_spells_a_name() -> None:
    found = {
        str(path.relative_to(SOURCE)): names
        for path in sorted(SOURCE.rglob("*.py"))
        if path != Path(layout.__file__) and (names := list(names_in(path.read_text("utf-8"))))
    }
    # torch.hub's cache has a folder of this name too
    assert found.keys() <= {"exchange/published.py"}, "say layout.NAME instead"
    assert len(found.get("exchange/published.py", ())) <= 1


@pytest.mark.parametrize(
    "code",
    [
        'path = folder / "config.yaml"',
        'raise ValueError(f"{folder} has no run.json")',
        'open(f"{folder}/eval/knn.json")',
        'message = "see views.npz"',
    ],
)
def test_names_are_seen_wherever_they_stand(code: str) -> None:
    assert list(names_in(code))


@pytest.mark.parametrize(
    "code", ['"""Reads ``config.yaml``."""', 'x = "dryrun.json"', 'x = "retrieval/"']
)
def test_other_words_are_no_names(code: str) -> None:
    assert not list(names_in(code))
