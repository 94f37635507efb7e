"""Runs side by side: their settings, scores and curves, in a table and on a page."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_config, write_pictures

import swav
from swav import cli
from swav.run_folder import layout
from swav.run_folder.result import Metric, Result

HOSTILE = "<img src=x onerror=alert(1)>"
TOP1 = {"seed0": 0.5, "seed1": 0.7, "sharp": 0.9}


def write_score(run: Path, value: float, *, pictures: int = 64) -> None:
    """Write a score of nearest neighbours, as ``swav evaluate`` does."""
    Result(
        task="knn",
        title="Nearest neighbours",
        protocol={"temperature": 0.07},
        metrics={"top1_k5": value, "top1_k10": value - 0.1},
        about={f"top1_k{k}": Metric(title=f"top-1, k = {k}", is_share=True) for k in (5, 10)},
        lead="top1_k5",
        intervals={"top1_k5": (value - 0.05, value + 0.05)},
        baselines={"random": {"top1_k5": 0.4}, "pixels": {"top1_k5": 0.45}},
        counts={"score": pictures, "features": 16},
    ).write(layout.evaluation(run, "knn"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ by their seed and one by epsilon, with scores."""
    folder = tmp_path_factory.mktemp("compare")
    base = tiny_config(write_pictures(folder), epochs=1, evaluate_at_end=False)
    sharp = replace(base, method=replace(base.method, epsilon=0.01))
    for name, config in (("seed0", base), ("seed1", replace(base, seed=1)), ("sharp", sharp)):
        swav.train(base.data.data, config=config, out=folder / name)
        write_score(folder / name, TOP1[name])
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


def test_seeds_are_one_line_with_their_spread(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *TOP1]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if "0." in line and "top1" in line]
    assert lines[0] == ["knn", "top1_k5", "seed0", "2", "0.6000", "+-0.1414", "0.4000", "0.4500"]
    assert lines[1] == ["top1_k5", "sharp", "1", "0.9000", "0.850-0.950", "0.4000", "0.4500"]
    assert "top1_k10" not in printed
    assert "method.epsilon: 0.05 | 0.01" in printed
    assert "seed:" not in printed


def test_all_measures_as_json_and_from_python(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *TOP1, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["groups"] == {"seed0": ["seed0", "seed1"], "sharp": ["sharp"]}
    assert said["settings"] == {"method.epsilon": ["0.05", "0.01"]}
    values = {(score["metric"], score["group"]): score["value"] for score in said["scores"]}
    assert values["top1_k10", "seed0"] == pytest.approx(0.5)
    assert len(values) == 4
    assert [*swav.compare([*TOP1]).groups] == ["seed0", "sharp"]


def test_the_page_has_every_curve_over_steps_pictures_and_seconds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *TOP1, "--to", "page.html"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "page.html"
    page = Path("page.html").read_text()
    for over in ("steps", "pictures seen", "seconds"):
        drawn = re.findall(rf'aria-label="Loss over {over}; at the end: ([^"]*)"', page)
        assert [re.sub(r"\d\.\d+", "x", said) for said in drawn] == ["1: x, 2: x"]
    assert "60.0\u00a0%" in page
    assert "\u00b1 14.1\u00a0%" in page
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_names_of_runs_are_text(folder: Path) -> None:
    Path("seed0").rename(HOSTILE)
    swav.compare([HOSTILE, "sharp"], to="page.html")
    page = Path("page.html").read_text()
    assert "&lt;img src=x" in page
    assert "<img" not in page


def test_scores_of_other_pictures_are_not_to_be_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_score(Path("sharp"), 0.9, pictures=32)
    comparison = swav.compare([*TOP1], to="page.html")
    assert comparison.unlike() == {"knn": ["score"]}
    assert "knn was not measured alike (score)" in capsys.readouterr().out
    assert "was not measured alike" in Path("page.html").read_text()


def test_runs_without_scores_or_a_log_are_compared_by_their_settings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in TOP1:
        shutil.rmtree(f"{run}/eval")
        Path(run, layout.METRICS).unlink()
    assert cli.main(["compare", *TOP1, "--to", "page.html"]) == 0
    assert "no run was evaluated" in capsys.readouterr().out
    assert "No run has a log" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed0"], "two run folders or more"),
        (["seed0", "./seed0"], "each once"),
        (["seed0", "drawn.npz"], "no run folder"),
        (["seed0", "seed1", "--to", "page.pdf"], "ends with .html"),
    ],
)
def test_what_cannot_be_compared(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *words]) == cli.USAGE
    assert message in capsys.readouterr().err
