"""``swav bench``: every figure is a measured one, and they add up."""

import json

import numpy as np
import pytest
from PIL import Image

from swav import cli


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(6):
        values = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(values).resize((160, 120)).save(folder / f"{index}.jpg")
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_stages_are_the_whole(photos, in_memory, capsys):
    words = ["bench", "input", str(photos), "--crops", "2x24,3x16", "--images", "4", "--json"]
    assert cli.main([*words, *(["--in-memory"] if in_memory else [])]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["crops"] == "2x24,3x16"
    assert report["images"] == 4
    assert sum(report["stages"].values()) == pytest.approx(report["swav_ms"])
    assert (report["decode_ms"] < 0.05 * report["swav_ms"]) == in_memory
    assert min(report["reference_ms"], report["swav_ms"]) > 0
    assert report["ratio"] == pytest.approx(report["reference_ms"] / report["swav_ms"])
    assert report["ratio_low"] <= report["ratio"] <= report["ratio_high"]
    assert report["pictures_per_second"] == pytest.approx(1e3 / report["swav_ms"])
    assert report["crops_per_second"] == pytest.approx(5 * report["pictures_per_second"])
    assert report["pictures_per_second_with_workers"] > 0


def test_a_table_for_people(photos, capsys):
    assert cli.main(["bench", "input", str(photos), "--crops", "1x16,1x8", "--images", "2"]) == 0
    shown = capsys.readouterr().out
    for words in ("ms a picture", "crop and resize", "times as fast as the reference", "workers"):
        assert words in shown


def test_crops_that_are_not_understood_are_named(photos, capsys):
    assert cli.main(["bench", "input", str(photos), "--crops", "2*32"]) == 2
    assert "crops '2*32': give at most 1 groups as COUNTxSIZE" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["cifar10-cpu", "deepcluster-cifar10-cpu"])
def test_the_stages_of_a_step_are_the_whole(recipe, capsys):
    words = ["bench", "step", "digits", "--recipe", recipe, "--crops", "2x16,1x8", "--steps", "2"]
    assert cli.main([*words, "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["recipe"], report["crops"], report["threads"]) == (recipe, "2x16,1x8", 1)
    assert sum(report["stages"].values()) == pytest.approx(report["step_ms"])
    # some are differences of medians
    assert min(report["stages"].values()) >= -0.2 * report["step_ms"]
    assert (report["stages"]["codes"] > 0) == (recipe == "cifar10-cpu")
    assert report["pictures_per_second"] == pytest.approx(128e3 / report["step_ms"])
    reached = report["pictures_per_second"] * report["gflop_per_picture"]
    assert report["gflops"] == pytest.approx(reached)
    assert report["share_of_peak"] == pytest.approx(report["gflops"] / report["peak_gflops"])
    assert 0 < report["share_of_peak"] < 1.5
    assert report["views_ms"] > 0


def test_a_step_for_people_and_what_is_refused(capsys):
    words = ["bench", "step", "digits", "--recipe", "cifar10-cpu", "--crops", "2x16", "--steps"]
    assert cli.main([*words, "1"]) == 0
    shown = capsys.readouterr().out
    for text in ("network, forward", "backward", "pictures/s", "GFLOP/s", "a product of two"):
        assert text in shown
    assert cli.main([*words, "0"]) == 2
    assert "steps 0 must be at least 1" in capsys.readouterr().err
    assert cli.main(["bench", "speed"]) == 2
    assert "speed" in capsys.readouterr().err
