"""What does not fit is refused before the first step: the value, the valid ones, the remedy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import drawn, tiny_config, write_pictures

from swav import cli, config
from swav.data.sources.listing import BadFile
from swav.data.sources.open import SourceConfig
from swav.run_folder.bad_files import append_bad_file, check_bad_files, write_bad_files
from swav.run_folder.layout import BAD_FILES

Refused = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run ``swav`` in a folder with pictures and a config; return exit code and message."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path)
    config.dump(tiny_config("drawn.npz"), tmp_path / "tiny.yaml")

    def run(*words: object) -> tuple[int, str]:
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return run


TRAIN = ("train", "--config", "tiny.yaml", "--out", "run")

REFUSALS: dict[str, tuple[tuple[object, ...], int, tuple[str, ...]]] = {
    "a set that is nowhere": (
        (*TRAIN, "emojis"),
        cli.FAILURE,
        ("'emojis'", "Did you mean emoji?", "a folder of pictures"),
    ),
    "no data": (("train", "--recipe", "demo2"), cli.USAGE, ("'demo2'", "Did you mean 'demo'?")),
    "fewer pictures than a batch": (
        (*TRAIN, "--optim.batch-size", 128),
        cli.FAILURE,
        ("64 pictures are fewer than one batch of 128", "--optim.batch-size 64"),
    ),
    "a crop far larger than the pictures": (
        (*TRAIN, "--crops", "2x224,2x16"),
        cli.FAILURE,
        ("2x224", "8 times the median side of the pictures, 20", "up to 160"),
    ),
    "far too many prototypes": (
        (*TRAIN, "--method.num-prototypes", 3000),
        cli.USAGE,
        ("batch 16 + queue 0 share 3000 prototypes", "--method.num-prototypes 256 or less"),
    ),
    "a queue of broken batches": (
        (*TRAIN, "--method.queue-length", 40),
        cli.USAGE,
        ("queue_length 40", "multiple of the global batch 16", "try 32 or 48"),
    ),
    "a backbone that timm does not have": (
        (*TRAIN, "--backbone", "resnet17"),
        cli.USAGE,
        ("'resnet17'", "did you mean", "swav list backbones"),
    ),
    "a function that makes no network": (
        (*TRAIN, "--backbone", "os:system"),
        cli.USAGE,
        ("'os:system'", "no factory of a network"),
    ),
    "views by the million": (
        (*TRAIN, "--crops", "999999999x32"),
        cli.USAGE,
        ("count 999999999", "[1, 100]"),
    ),
    "views of no size": ((*TRAIN, "--crops", "2x0"), cli.USAGE, ("both must be positive",)),
    "views too small for the network": (
        (*TRAIN, "--crops", "2x1"),
        cli.USAGE,
        ("crops 2x1", "convnext_atto", "larger"),
    ),
    "rounds without end": (
        (*TRAIN, "--method.iterations", 10**9),
        cli.USAGE,
        ("iterations 1000000000", "[0, 1000]", "the default is 3"),
    ),
    "more threads than any machine has": (
        (*TRAIN, "--threads", 10**6),
        cli.USAGE,
        ("threads 1000000", "[0, 1024]"),
    ),
    "the sixth of one processor": (
        (*TRAIN, "--device", "cpu:5"),
        cli.USAGE,
        ("'cpu:5' is not here", "use cpu"),
    ),
    "a plan for a device that is not there": (
        (*TRAIN, "--device", "mps", "--dry-run"),
        cli.USAGE,
        ("'mps' is not here", "use cpu"),
    ),
    "more memory than there is": (
        (*TRAIN, "--data.max-memory-gib", "inf"),
        cli.USAGE,
        ("max_memory_gib inf", "the default is 1.0"),
    ),
    "no picture to measure": (
        ("bench", "input", "drawn.npz", "--images", 0),
        cli.USAGE,
        ("images 0", "at least 1"),
    ),
    "an option that is not there": (
        (*TRAIN, "--method.epsilom", 0.1),
        cli.USAGE,
        ("--method.epsilom", "--method.epsilon"),
    ),
    "a device that is not there": (
        (*TRAIN, "--device", "tpu"),
        cli.USAGE,
        ("'tpu'", "use cpu", "auto"),
    ),
    "synchronised BatchNorm on a CPU": (
        (*TRAIN, "--sync-batchnorm"),
        cli.USAGE,
        ("sync_batchnorm", "cpu", "--no-sync-batchnorm"),
    ),
    "a batch that micro-batches do not divide": (
        (*TRAIN, "--optim.accumulate", 3),
        cli.USAGE,
        ("batch_size 16", "accumulate 3"),
    ),
    "to continue nothing": (("train", "--resume"), cli.USAGE, ("--resume", "--out")),
    "no run to evaluate": (
        ("evaluate", "nowhere"),
        cli.FAILURE,
        ("nowhere is no run folder", "--out"),
    ),
    "a task that is not there": (
        ("evaluate", "nowhere", "--tasks", "knnn"),
        cli.USAGE,
        ("'knnn'", "Did you mean 'knn'?", "linear"),
    ),
    "a file of another kind for embeddings": (
        ("embed", "nowhere", "drawn.npz", "--to", "embeddings.txt"),
        cli.USAGE,
        ("embeddings.txt", ".npz", ".csv", ".parquet"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_with_value_and_remedy(name: str, refused: Refused, tmp_path: Path) -> None:
    words, expected_code, said = REFUSALS[name]
    code, message = refused(*words)
    assert code == expected_code, message
    for part in said:
        assert part in message
    assert message.startswith("swav: ")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_no_pictures_in_a_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, message = refused(*TRAIN, "empty")
    assert code == cli.FAILURE
    assert "empty" in message


def test_one_picture_is_no_set(refused: Refused, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", pictures=drawn()[0][:1])
    for words in (TRAIN, (*TRAIN, "--dry-run")):
        code, message = refused(*words, "one.npz")
        assert code == cli.FAILURE
        assert "1 picture cannot be told from any other: give at least 2" in message


@pytest.mark.usefixtures("refused")  # it is where the pictures are
def test_few_rows_for_the_prototypes_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    words = (*TRAIN, "--method.num-prototypes", 100, "--dry-run")
    assert cli.main([*map(str, words)]) == 0
    assert "batch 16 + queue 0 is below 100 prototypes" in caplog.text
    assert "--method.num-prototypes 16 or less" in caplog.text


def test_too_many_unreadable_pictures(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, pixels in enumerate(drawn()[0]):
        Image.fromarray(pixels).save(folder / f"{place:02d}.png")
    for place in (3, 5):
        (folder / f"{place:02d}.png").write_bytes(b"no picture")
    code, message = refused(*TRAIN, "photos")
    assert code == cli.FAILURE
    assert "2 of 64 pictures" in message
    assert "03.png" in message
    assert "max_bad_fraction" in message


def test_bad_files_are_listed_once_each_in_one_line(tmp_path: Path) -> None:
    write_bad_files(tmp_path, [])
    assert not (tmp_path / BAD_FILES).exists()
    for _ in range(4):  # as two workers do, in two epochs
        append_bad_file(tmp_path, BadFile("b.png", "no picture"))
    found = [BadFile("b.png", "no picture"), BadFile("a\nb.png", "broken:\n  at byte 7")]
    write_bad_files(tmp_path, found)
    write_bad_files(tmp_path, found)
    lines = (tmp_path / BAD_FILES).read_text().splitlines()
    assert lines == ["'a\\nb.png'\tbroken: at byte 7", "'b.png'\tno picture"]


def test_bad_files_met_on_the_way_stop_the_run_above_the_limit(tmp_path: Path) -> None:
    source = SourceConfig(data="photos", max_bad_fraction=0.02)
    check_bad_files(tmp_path, source, num_listed=100)
    write_bad_files(tmp_path, [BadFile(f"{place}.png", "empty") for place in range(2)])
    check_bad_files(tmp_path, source, num_listed=100)
    write_bad_files(tmp_path, [BadFile("2.png", "empty")])
    with pytest.raises(ValueError, match=r"3 of 100 .* allowed 2\.0%.*--data\.max-bad-fraction"):
        check_bad_files(tmp_path, source, num_listed=100)


def test_arrays_that_are_not_pictures(refused: Refused, tmp_path: Path) -> None:
    np.savez(tmp_path / "numbers.npz", pictures=np.zeros(7))
    code, message = refused(*TRAIN, "numbers.npz")
    assert code == cli.FAILURE
    assert "shape (7,)" in message
