"""Measure the structure of a checkout: rooms, imports between files, lines, functions, comments.

python scripts/structure.py [FOLDER ...]     by default this checkout
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

LONG_FUNCTION, LONG_FILE = 40, 400


def measure(root: Path) -> dict[str, object]:
    """Return the measures of ``src/swav`` below ``root``."""
    source = root / "src" / "swav"
    files = sorted(source.rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    arrows = {(one, other) for one in files for other in imports(one, trees[one], source)}
    commands = [pair for pair in arrows if all(path.parent.name == "commands" for path in pair)]
    lines = {path: len(text.splitlines()) for path, text in texts.items()}
    command_line = ("cli.py", "config.py", "yaml_core.py", "recipes/options.py")
    functions = [node for tree in trees.values() for node in ast.walk(tree) if is_function(node)]
    num_long = sum(node.end_lineno - node.lineno >= LONG_FUNCTION for node in functions)
    num_comments = sum(map(comments, texts.values()))
    return {
        "files by room": dict(Counter(room(path, source) for path in files)),
        "arrows inside commands/": len(commands),
        "arrows in all": len(arrows),
        "lines": sum(lines.values()),
        "of these without blanks, comments and docstrings": sum(map(code_lines, texts.values())),
        "lines of command line and configuration": sum(
            lines.get(source / name, 0) for name in command_line
        ),
        f"functions over {LONG_FUNCTION} lines": f"{num_long} of {len(functions)}",
        "comments, % of lines": round(100 * num_comments / sum(lines.values()), 1),
        f"files over {LONG_FILE} lines": sorted(
            path.name for path, number in lines.items() if number > LONG_FILE
        ),
    }


def is_function(node: ast.AST) -> bool:
    """Return whether a node defines a function."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def room(path: Path, source: Path) -> str:
    """Return the folder of a file, as the tree of the CONTRIBUTING.md names it."""
    return str(path.parent.relative_to(source)) if path.parent != source else "(top)"


def imports(path: Path, tree: ast.Module, source: Path) -> set[Path]:
    """Return the files of the package that a file imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("swav"):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("swav.")}
    return {target for name in names if (target := file_of(name, source)) not in (None, path)}


def file_of(name: str, source: Path) -> Path | None:
    """Return the file of a dotted name: of the module, or of the module that holds the name."""
    parts = name.split(".")[1:]
    for end in range(len(parts), -1, -1):
        base = source.joinpath(*parts[:end])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.exists():
                return path
    return None


def comments(text: str) -> int:
    """Return the number of comments; those for tools (noqa, type: ignore) do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum(not comment.startswith(("# noqa", "# type:")) for comment in found)


def code_lines(text: str) -> int:
    """Return the number of lines that hold code."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    lines: set[int] = set()
    for before, token in zip([None, *tokens], tokens, strict=False):
        is_docstring = token.type == tokenize.STRING and (
            before is None or before.type in skipped or before.type == tokenize.ENCODING
        )
        if token.type not in skipped and token.type != tokenize.ENDMARKER and not is_docstring:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines)


if __name__ == "__main__":
    for folder in sys.argv[1:] or [str(Path(__file__).parents[1])]:
        print(folder)
        for name, value in measure(Path(folder)).items():
            print(f"  {name}: {value}")
