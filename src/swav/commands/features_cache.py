"""Features kept in a folder, so that the same network sees the same pictures once.

The name of a file is a digest of everything its content depends on: the network's weights, the
evaluation transform, the pictures, the kind of device and the versions of the packages.
"""

import os
from hashlib import blake2b
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from swav.data.sources import Pictures
from swav.evals.features import Features, encode_rows, features_of
from swav.evals.result import installed_versions
from swav.evals.subject import Extract, Subject, compute_features

VERSIONS = ("swav", "torch", "torchvision", "timm", "pillow", "opencv-python-headless")


def cached_in(folder: Path) -> Extract:
    """Return how a subject's features are read from ``folder``, or computed and written there.

    Raw pixels are not kept: they cost less than a file.
    """

    def extract(subject: Subject, pictures: Pictures) -> Features:
        if subject.backbone is None:
            return compute_features(subject, pictures)
        path = folder / f"{_digest(subject, pictures)}.safetensors"
        if path.exists():
            tensors = safetensors.torch.load_file(path)
            return features_of(tensors["values"], pictures, tensors["kept"].tolist())
        values, kept = encode_rows(subject.encode, pictures)
        _write({"values": values, "kept": torch.tensor(kept)}, path)
        return features_of(values, pictures, kept)

    return extract


def weights_digest(network: nn.Module) -> str:
    """Return a text that changes when any parameter or buffer of a network does."""
    found = blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _digest(subject: Subject, pictures: Pictures) -> str:
    assert subject.backbone is not None
    versions = installed_versions()
    parts = (
        str(type(subject.backbone)),
        weights_digest(subject.backbone),
        str(subject.transform),
        pictures.digest(),
        subject.device.type,
        *(versions[package] for package in VERSIONS),
    )
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _write(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a file; a reader sees none or the whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    safetensors.torch.save_file(tensors, unfinished)
    unfinished.replace(path)
