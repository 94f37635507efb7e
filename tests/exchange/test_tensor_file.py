"""Hostile and damaged files: each is refused in one clear error, and nothing of it runs."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from swav.exchange.weights import read_weights

TENSORS = {"conv1.weight": torch.arange(64.0).view(4, 16)}


class Evil:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compress: int = 0) -> None:
    """Write the archive again with every file in it changed."""
    with zipfile.ZipFile(path) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression=compress) as archive:
        for entry, content in files.items():
            archive.writestr(entry, change(entry, content))


@pytest.mark.parametrize("form", ["archive", "legacy", "pickle", "wrapped"])
def test_code_in_a_file_is_not_run(form: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    evil = {**TENSORS, "layer": Evil(trace)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        tree: Any = {"state_dict": TENSORS, "args": Evil(trace)} if form == "wrapped" else evil
        torch.save(tree, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(
        ValueError, match=r"weights\.pth cannot be read.*torch\.save\(model"
    ) as info:
        read_weights(path)
    assert "it holds code or objects beside tensors, which are never loaded" in str(info.value)
    assert "weights_only" not in str(info.value)
    assert not trace.exists()


@pytest.mark.parametrize("form", ["archive", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(form: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        safetensors.torch.save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=form == "archive")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cannot be read as a file of weights.*Download it again"):
        read_weights(path)


def larger(content: bytes, before: int = 64, after: int = 2**31 - 1) -> bytes:
    """Return a pickle in which each number is a large one."""
    changed = content.replace(b"K" + bytes([before]), b"J" + struct.pack("<i", after))
    assert changed != content
    return changed


def test_an_archive_that_declares_a_large_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(TENSORS, path)
    rewritten(path, lambda name, data: larger(data) if name.endswith("data.pkl") else data)
    with pytest.raises(ValueError, match=r"it declares 2,147,483,647 numbers and has"):
        read_weights(path)


def test_an_old_file_that_declares_a_large_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    path.write_bytes(larger(path.read_bytes()))
    with pytest.raises(ValueError, match=r"it declares 2,147,483,647 numbers and has"):
        read_weights(path)


def test_a_shape_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.arange(64.0).view(4, 16)}, path)
    rewritten(path, lambda name, data: larger(data, 4) if name.endswith("data.pkl") else data)
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        read_weights(path)


def test_a_number_that_claims_to_be_many_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="it declares tensors of 4,000,000,000,000 bytes and has"):
        read_weights(tmp_path / "weights.pth")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": torch.zeros(10**5)}, path)
    rewritten(path, lambda _, data: data, compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="its archive is compressed, which"):
        read_weights(path)


def test_sizes_in_the_header_of_safetensors_are_checked(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"0000")
    with pytest.raises(ValueError, match="cannot be read as a file of weights"):
        read_weights(path)


def test_a_file_larger_than_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.touch()
    os.truncate(path, 2**43)  # takes no room on the disk
    with pytest.raises(ValueError, match=r"is 8192.0 GiB, more than the memory of this machine"):
        read_weights(path)


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"layer": [1, 2]}, "holds no state dict"),
        ({}, "holds no state dict"),
        ({"state_dict": {}}, "holds no state dict"),
        ([torch.zeros(2)], "holds no state dict but a list"),
        (torch.zeros(2), "holds no state dict but a Tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "a is sparse, quantised or empty"),
        ({"a": torch.zeros(2), "module.a": torch.ones(2)}, "same name with and without module"),
        ({"classy_state_dict": {"base_model": {}}}, "has no base_model.model.trunk"),
        (
            {
                "conv1.weight": torch.zeros(4, 3),
                "projection_head.weight": torch.zeros(6, 4),
                "prototypes.weight": torch.zeros(3, 5),
            },
            "prototypes of 5 numbers do not fit the projection head, whose embeddings have 6",
        ),
        (
            {
                "conv1.weight": torch.zeros(4, 3),
                "projection_head.0.weight": torch.zeros(6, 4),
                "projection_head.2.weight": torch.zeros(3, 7),
            },
            "the layers of its projection head do not fit together",
        ),
        (
            {
                "backbone.conv1.weight": torch.zeros(4, 3),
                "projector.weight": torch.zeros(6, 4),
                "prototypes.weight_g": torch.zeros(5, 1),
                "prototypes.weight_v": torch.zeros(3, 6),
            },
            "weight_g is not one length for each row of weight_v",
        ),
        (
            {
                "cls_token": torch.zeros(1, 1, 8),
                "register_tokens": torch.zeros(1, 4, 8),
                "pos_embed": torch.zeros(1, 5, 9),
            },
            "cannot be used",
        ),
        (
            {"backbone.0.weight": torch.zeros(1), "backbone.conv1.weight": torch.zeros(1)},
            "two of its tensors have the same place",
        ),
        (
            {
                "cls_token": torch.zeros(1, 1, 8),
                "mask_token": torch.zeros(1, 8),
                "blocks.0.0.norm1.weight": torch.zeros(8),
                "blocks.1.0.norm1.weight": torch.zeros(8),
            },
            "two of its tensors have the same place",
        ),
        (
            {"cls_token": torch.zeros(1, 1, 8), "register_tokens": torch.zeros(1, 4, 8)},
            "register_tokens, but no pos_embed",
        ),
    ],
)
def test_what_is_no_weights_is_refused(tree: Any, reason: str, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights\.pth.*{reason}"):
        read_weights(tmp_path / "weights.pth")


def test_a_tree_in_itself_is_refused(tmp_path: Path) -> None:
    tree: dict[str, Any] = {}
    tree["model"] = tree
    torch.save(tree, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [b"no weights", b"", b"PK\x03\x04rest", b"\x80\x02}q\x00."])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth cannot be read as a file of weights: .*"):
        read_weights(tmp_path / "weights.pth")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_weights(tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="is a folder, not a file"):
        read_weights(tmp_path)
