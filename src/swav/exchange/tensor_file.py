"""Files of tensors by whoever: opened without running their code, sizes checked first."""

import argparse
import hashlib
import io
import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
"""What files may hold beside tensors and plain values: DINO keeps its arguments so, plain too."""
OBJECT = re.compile(r"unsupported (?:global|class):? (?:GLOBAL )?([\w.]+)", re.IGNORECASE)
"""How torch says that a pickle names something else."""


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """What a file holds: tensors below names, perhaps deeper, and what else was saved."""

    tree: Mapping[str, Any]
    size: int
    """Bytes on disk."""
    sha256: str
    licence: str | None


def open_tensor_file(path: Path) -> TensorFile:
    """Return what a file of safetensors or ``torch.save`` holds.

    Raises:
        ValueError: if there is none, it is damaged, holds code, declares more than it has, or is
            larger than the memory of this machine.
    """
    if not path.is_file():
        raise ValueError(
            f"{path} {'is a folder, not a file' if path.exists() else 'does not exist'}"
        )
    size = path.stat().st_size
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise ValueError(
            f"{path} is {size / 2**30:.1f} GiB, more than the memory of this machine "
            f"({memory / 2**30:.1f} GiB): save its tensors alone, without the optimizer's"
        )
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        tree, licence = _safetensors(path) if _is_safetensors(path) else (_torch(path, size), None)
    except Exception as error:  # pickles and archives fail in many ways
        raise ValueError(f"{path} cannot be read as a file of weights: {_reason(error)}") from error
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"{path} holds no state dict but a {type(tree).__name__}: a mapping from names to "
            "tensors is needed"
        )
    return TensorFile(tree=tree, size=size, sha256=sha256, licence=licence)


def check_tensors(tensors: Mapping[Any, Any], size: int) -> dict[str, Tensor]:
    """Return the same, known to be names and dense tensors that this file has the bytes of.

    Raises:
        ValueError: if they are not.
    """
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError("holds no state dict: a mapping from names to tensors is needed")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ValueError(f"{name} is sparse, quantised or empty: save dense tensors")
    declared = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    # tied weights are in the file once; a view of one number can claim to be of any size
    if declared > 2 * size:
        raise ValueError(
            f"it declares tensors of {declared:,} bytes and has {size:,}: download it again"
        )
    return {str(name): tensor.detach() for name, tensor in tensors.items()}


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    # the header of safetensors is JSON after eight bytes of its length
    return path.suffix == ".safetensors" or (start[8:] == b"{" and start[:2] != b"PK")


def _safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return tensors and licence; the library compares all sizes with the file before it reads."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return safetensors.torch.load_file(path), metadata.get("license") or metadata.get("licence")


def _torch(path: Path, size: int) -> Any:
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            _check_archive(file, size)
        else:
            _check_pickles(file, size)
        file.seek(0)
        # weights_only: a pickle of others could run any code (safe from torch 2.10 on)
        with torch.serialization.safe_globals(SAFE_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse tensors, which are refused next
            return torch.load(file, map_location="cpu", weights_only=True)


def _check_archive(file: io.BufferedReader, size: int) -> None:
    """Raise ``ValueError`` if unpacking takes more bytes than the file has."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its archive is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its archive declares more bytes than the file has")
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                _check_storages(io.BytesIO(archive.read(entry)), size)


def _check_pickles(file: io.BufferedReader, size: int) -> None:
    """Check the same of a file from before torch 1.6: four pickles, then the numbers."""
    file.seek(0)
    for _ in range(4):
        if file.peek(1):
            _check_storages(file, size)


def _check_storages(pickled: io.BytesIO | io.BufferedReader, size: int) -> None:
    """Raise ``ValueError`` if a pickle asks for more numbers than the file has bytes."""
    try:
        largest = _largest_storage(pickled)
    except ValueError as error:
        if "unknown" in str(error):  # no pickle at all, which torch says
            return
        raise ValueError("it ends in the middle") from error
    if largest > size:
        raise ValueError(f"it declares {largest:,} numbers and has {size:,} bytes")


def _largest_storage(pickled: io.BytesIO | io.BufferedReader) -> int:
    """Return the largest length of a storage in a pickle, read as opcodes: nothing is built.

    A storage is a persistent id, a tuple from a mark on whose one number is the length.
    """
    largest, numbers = 0, [0]
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "MARK":
            numbers = [0]
        elif opcode.name in ("BININT", "BININT1", "BININT2", "LONG1", "LONG4"):
            assert isinstance(argument, int)
            numbers.append(argument)
        elif opcode.name == "BINPERSID":
            largest = max(largest, *numbers)
    return largest


def _reason(error: Exception) -> str:
    """Return in one line what is wrong and what to do.

    Of torch's own text the start alone: it goes on to advise loading the file unsafely.
    """
    text = str(error) or "it ends too early"
    refused = OBJECT.search(text)
    if refused is not None:
        return (
            "it holds code or objects beside tensors, which are never loaded "
            f"({refused[1]}). If you trust it, save its tensors alone where it was made: "
            'torch.save(model.state_dict(), "weights.pth")'
        )
    if "Weights only load failed" in text:
        text = "it is not of torch.save or safetensors, or damaged"
    first = text.splitlines()[0].partition(". ")[0].rstrip(".")
    return f"{first[:200]}. Download it again, or save it as safetensors"
