"""Follow docs/add-a-method.md to the letter, in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHECKS = """
import runpy, sys
sys.path[:0] = ["{tests}"]
import torch
from swav.methods import CentreConfig, MethodConfig
from tiny import TINY_METHODS, WITH_BATCHNORM, WITHOUT_BATCHNORM
import swav.cli
method = TINY_METHODS[CentreConfig] = {tiny}
from contracts import test_methods as contract
for backbone in (WITH_BATCHNORM, WITHOUT_BATCHNORM):
    contract.test_every_trainable_parameter_gets_a_gradient(method, backbone)
contract.test_the_same_seed_gives_the_same_bits(method)
contract.test_any_number_of_target_and_small_views(method, 1, 1)
contract.test_a_small_step_down_the_gradient_brings_the_loss_down(method)
contract.test_micro_batches_are_one_batch_or_refused(method)
contract.test_the_config_comes_back(method)
runpy.run_path("test_centre.py")["test_the_loss_is_distance_and_missing_spread"]()
sys.exit(swav.cli.main({words}))
"""


def blocks() -> dict[str, str]:
    """Return the code of the page by the first line of each block, a command by its program."""
    page = (ROOT / "docs" / "add-a-method.md").read_text()
    found = re.findall(r"```(?:python|bash)\n(.*?)```", page, flags=re.DOTALL)
    named = {}
    for block in found:
        first, _, rest = block.partition("\n")
        if first.startswith("# "):
            named[first.removeprefix("# ")] = rest
        else:
            named[first.split()[0]] = first
    return named


def test_the_page_leads_to_a_method(tmp_path: Path) -> None:
    code = blocks()
    package = tmp_path / "swav"
    shutil.copytree(ROOT / "src" / "swav", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "methods" / "centre.py").write_text(code["src/swav/methods/centre.py"])
    union = package / "methods" / "__init__.py"
    text = union.read_text()
    last = re.search(r"MethodConfig = \((.*?)\n\)", text, flags=re.DOTALL)
    assert last is not None
    text = text[: last.end(1)] + "\n" + code["MethodConfig"].rstrip() + text[last.end(1) :]
    text = text.replace("\nfrom ", "\n" + code["src/swav/methods/__init__.py"] + "from ", 1)
    union.write_text(text)
    (tmp_path / "test_centre.py").write_text(code["tests/methods/test_centre.py"])
    checks = CHECKS.format(
        tests=ROOT / "tests", tiny=code["TINY_METHODS"].strip(), words=code["swav"].split()[1:]
    )
    finished = subprocess.run(
        [sys.executable, "-c", checks],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if finished.returncode:
        pytest.fail(finished.stderr)
    assert "method centre" in finished.stdout
