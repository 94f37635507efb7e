"""Files and folders that appear whole, with the access that the user's files have."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from swav.run_folder.atomic import replacing, replacing_folder, write_atomically

TENSORS = {"a": torch.zeros(3)}


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_have_the_access_that_the_user_asks_for(umask: int, tmp_path: Path) -> None:
    write_atomically(tmp_path / "text", "")
    with replacing(tmp_path / "a.safetensors") as unfinished:
        save_file(TENSORS, unfinished)
    with replacing_folder(tmp_path / "folder") as folder:
        save_file(TENSORS, folder / "b.safetensors")
    for name in ("text", "a.safetensors", "folder/b.safetensors"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask, name


def test_after_an_exception_a_folder_is_as_it_was(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        with replacing_folder(folder) as unfinished:
            (unfinished / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "made" / "for it")
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").touch()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "kept")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "old"]
