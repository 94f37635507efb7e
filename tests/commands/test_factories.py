"""A config or run folder may name code, and only a person may have it run."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_config, write_pictures

import swav
from swav import cli, config
from swav.nn.backbones import BackboneConfig

NAME = "own_network:tiny"
OWN_NETWORK = """
from pathlib import Path
from torch import nn

Path("imported").touch()


def tiny(in_chans):
    network = nn.Sequential(nn.Conv2d(in_chans, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.num_features = 8
    return network
"""
VERBS: dict[str, tuple[str, ...]] = {
    "train": ("train", "--config", "tiny.yaml", "--out", "new"),
    "plan": ("train", "--config", "tiny.yaml", "--out", "new", "--dry-run"),
    "resume": ("train", "--resume", "--out", "run"),
    "embed": ("embed", "run", "drawn.npz", "--to", "embeddings.npz"),
    "cluster": ("cluster", "run", "--to", "clusters.csv"),
    "evaluate": ("evaluate", "run", "--tasks", "clusters"),
    "start from it": (
        *("train", "--config", "other.yaml", "--epochs", "1", "--init", "run"),
        *("--out", "started"),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pictures, a run of a network of one's own, and its config."""
    folder = tmp_path_factory.mktemp("factories")
    (folder / "own_network.py").write_text(OWN_NETWORK)
    made = tiny_config(
        write_pictures(folder),
        epochs=1,
        evaluate_at_end=False,
        backbone=BackboneConfig(name=NAME),
    )
    config.dump(made, folder / "tiny.yaml")
    config.dump(replace(made, backbone=BackboneConfig(name="resnet10t")), folder / "other.yaml")
    before = Path.cwd()
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        assert cli.main(["train", "--config", "tiny.yaml", "--backbone", NAME, "--out", "run"]) == 0
        yield folder
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        sys.modules.pop("own_network", None)


@pytest.fixture
def was_imported(folder: Path) -> Callable[[], bool]:
    """Say whether the module of the network was imported since the test began."""
    sys.modules.pop("own_network", None)
    (folder / "imported").unlink(missing_ok=True)
    shutil.rmtree(folder / "new", ignore_errors=True)
    return (folder / "imported").exists


@pytest.mark.parametrize("verb", VERBS)
def test_a_factory_in_a_config_runs_only_if_it_is_allowed(
    verb: str, folder: Path, was_imported: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    for allowed in ((), ("--allow-factory", "own_network"), ("--allow-factory", f"{NAME}2")):
        assert cli.main([*VERBS[verb], *allowed]) == cli.FAILURE
        message = capsys.readouterr().err
        assert f"backbone {NAME!r} is a factory" in message
        assert f"--allow-factory {NAME}" in message
        assert not was_imported()
        assert not (folder / "new").exists()
    if verb == "start from it":  # the other network is found to be another one
        assert cli.main([*VERBS[verb], "--allow-factory", NAME]) == cli.FAILURE
        assert f"holds {NAME}" in capsys.readouterr().err
    else:
        assert cli.main([*VERBS[verb], "--allow-factory", NAME]) == 0, capsys.readouterr().err
    assert was_imported()


@pytest.mark.parametrize("typed", ["--backbone", "--backbone.name"])
def test_a_factory_that_was_typed_is_allowed(
    typed: str, folder: Path, was_imported: Callable[[], bool]
) -> None:
    assert cli.main([*VERBS["plan"], typed, NAME]) == 0
    assert cli.main([*VERBS["resume"], typed, NAME]) == 0
    assert was_imported()


def test_an_untrained_network_of_ones_own_can_be_evaluated(
    folder: Path, was_imported: Callable[[], bool]
) -> None:
    words = ("evaluate", f"random:{NAME}", "drawn.npz", "--tasks", "knn", "--input-size", "20")
    assert cli.main([*words]) == 0
    assert was_imported()


def test_the_same_from_python(folder: Path, was_imported: Callable[[], bool]) -> None:
    with pytest.raises(ValueError, match=f"allow_factory='{NAME}'"):
        swav.load("run")
    for substring in ("", "own_network:tiny2"):
        with pytest.raises(ValueError, match=f"allow_factory='{NAME}'"):
            swav.load("run", allow_factory=substring)
    assert not was_imported()
    run = swav.load("run", allow_factory=NAME)
    assert run.untrained().num_features == run.backbone.num_features == 8
    swav.embed("run", to="embeddings.csv", allow_factory=[NAME])
