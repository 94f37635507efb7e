"""Figures take their colours from the page, say their last values and leave matplotlib alone."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from swav.report.figures import _spread, cluster_sizes, curves, stages, write_stages


def columns(rows: int) -> dict[str, np.ndarray]:
    """Return columns with gaps, as a log that was written in parts has them."""
    loss = np.linspace(4.0, 2.0, rows)
    loss[rows // 2] = np.nan
    return {
        "step": np.arange(rows, dtype=np.float64),
        "loss": loss,
        "ln_k": np.full(rows, 4.094),
        "lr": np.full(rows, 0.3),
        "images_per_second": np.full(rows, 1234.0),
    }


@pytest.mark.parametrize("rows", [3, 5000])
def test_figures_say_their_last_values_and_stay_small(rows: int) -> None:
    loss, rate, speed = curves(columns(rows))
    assert ">loss 2.000<" in loss.svg
    assert ">ln K 4.094<" in loss.svg
    assert ">0.3<" in rate.svg
    assert ">1,234<" in speed.svg
    assert len(loss.svg) < 40_000


def test_every_colour_follows_the_page() -> None:
    for picture in [*curves(columns(20)), cluster_sizes([5, 3, 1], ["7", "0", "12"])]:
        assert re.findall(r"(?:fill|stroke): (?!var\(|none)[^;\"]*", picture.svg) == []
        assert "font-family" not in picture.svg


def test_figures_share_no_names_that_they_refer_to() -> None:
    figures = [*curves(columns(20)), cluster_sizes([5, 3, 1], ["7", "0", "12"])]
    names = [name for each in figures for name in set(re.findall(r' id="([^"]*)"', each.svg))]
    assert len(names) == len(set(names))
    for each in figures:
        referred = re.findall(r'(?:href="|url\()#([^")]*)', each.svg)
        assert set(referred) <= set(re.findall(r' id="([^"]*)"', each.svg))


def test_a_method_without_prototypes_gets_the_figures_it_has_numbers_for() -> None:
    titles = [each.title for each in curves({"step": np.arange(3.0), "loss": np.ones(3)})]
    assert titles == ["Loss"]
    assert curves({"step": np.arange(3.0), "lr": np.full(3, np.nan)}) == []


def test_matplotlib_is_left_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    curves(columns(4))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("heights", [[0.5, 0.5, 0.5], [0.99, 1.0], [0.0, 0.9, 0.3], [0.4]])
def test_labels_do_not_touch_and_keep_their_order(heights: list[float]) -> None:
    placed = np.array(_spread(heights, [0.1] * len(heights)))
    assert (np.diff(np.sort(placed)) >= 0.1 - 1e-9).all()
    assert (placed <= 1.08).all()
    order = np.argsort(heights, kind="stable")
    assert (np.diff(placed[order]) >= 0).all()


def test_the_probe_of_each_stage_is_drawn_beside_its_baselines(tmp_path: Path) -> None:
    metrics = {"stage1": 0.3, "stage2": 0.45, "stage3": 0.525, "top1": 0.525}
    baselines = {"random": {"stage1": 0.3, "stage2": 0.31, "stage3": 0.25}, "pixels": {"top1": 0.4}}
    started = stages(metrics, {**baselines, "start": {"stage1": 0.2, "stage2": 0.6}})
    assert started is not None
    assert "at the last: this run 52.5, start, frozen 60.0, untrained 25.0" in started.svg
    picture = stages(metrics, baselines)
    assert picture is not None
    for label in ("52.5", "25.0", "40.0", "this run", "untrained", "raw pixels"):
        assert f">{label}<" in picture.svg
    assert "at the last: this run 52.5, untrained 25.0, raw pixels 40.0" in picture.svg
    assert "#00000" not in picture.svg
    write_stages(metrics, baselines, tmp_path / "layers.svg")
    written = (tmp_path / "layers.svg").read_text()
    assert "xmlns" in written
    assert "#00000" not in written
    assert stages({"top1": 0.5}, {}) is None
    write_stages({"top1": 0.5}, {}, tmp_path / "none.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["layers.svg"]


def test_bars_bear_the_numbers_of_their_clusters() -> None:
    few = cluster_sizes([5, 3, 1], ["7", "31", "12"]).svg
    assert [few.count(f">{name}</text>") for name in ("7", "31", "12")] == [1, 1, 1]
    many = cluster_sizes(list(range(60, 0, -1)), [f"{100 + place}" for place in range(60)]).svg
    assert ">100</text>" in many
    assert ">159</text>" in many
