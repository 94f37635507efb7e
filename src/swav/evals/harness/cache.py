"""Features kept in a folder, so that the same network sees the same pictures once.

The name of a file is a digest of everything its content depends on: the network's layers and
weights, the evaluation transform, the pictures, which features of them, the kind of device and
the versions of the packages.
"""

import logging
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from swav.data.sources.pictures import Pictures
from swav.evals.harness.extract import Rows
from swav.evals.harness.subject import FeatureCache, Subject
from swav.run_folder.atomic import replacing
from swav.run_folder.result import installed_versions

logger = logging.getLogger(__name__)

VERSIONS = ("swav", "torch", "torchvision", "timm", "pillow", "opencv-python-headless")


def cached_in(folder: Path) -> FeatureCache:
    """Return how a subject's features are read from ``folder``, or computed and written there.

    What needs no network is not kept: pixels cost less than a file, and each command measures the
    baselines once for all models.
    """

    def read_or_compute(
        subject: Subject, pictures: Pictures, name: str, compute: Callable[[], Rows]
    ) -> Rows:
        if subject.backbone is None:
            return compute()
        path = folder / f"{_digest(subject, pictures, name)}.safetensors"
        tensors = _read(path)
        if tensors is not None:
            kept = tensors.pop("kept").tolist()
            return [tensors[f"values{kind}"] for kind in range(len(tensors))], kept
        values, kept = compute()
        named = {f"values{kind}": rows for kind, rows in enumerate(values)}
        _write({**named, "kept": torch.tensor(kept)}, path)
        return values, kept

    return read_or_compute


def _read(path: Path) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a file, or None where there is none or only a damaged one."""
    try:
        return safetensors.torch.load_file(path) if path.exists() else None
    except SafetensorError:
        logger.warning("%s is damaged: its features are computed again", path)
        return None


def weights_digest(network: nn.Module) -> str:
    """Return a text that changes when any parameter or buffer of a network does."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(subject: Subject, pictures: Pictures, name: str) -> str:
    assert subject.backbone is not None
    versions = installed_versions()
    parts = (
        name,
        repr(subject.backbone),  # weights alone do not tell padding, strides or activations
        weights_digest(subject.backbone),
        str(subject.transform),
        pictures.digest(),
        subject.device.type,
        *(versions[package] for package in VERSIONS),
    )
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _write(tensors: dict[str, torch.Tensor], path: Path) -> None:
    with replacing(path) as unfinished:
        safetensors.torch.save_file(tensors, unfinished)
