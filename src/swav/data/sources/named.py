"""Sets known by name: the built-in ones, and torchvision's from files that are already there."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from swav.data.sources import archives
from swav.data.sources.arrays import array_reader, numbered_names, to_labels
from swav.data.sources.listing import PackedNames, number
from swav.data.sources.readers import Archive, Contents

BUILT_IN = ("clothes", "emoji", "digits")


class NamedSet(NamedTuple):
    """What a set of torchvision is called there, and where it looks for the files."""

    torchvision_name: str
    folder: str
    splits: tuple[str, ...] = ("train", "test")


TORCHVISION = {
    "cifar10": NamedSet("CIFAR10", "cifar-10-batches-py"),
    "cifar100": NamedSet("CIFAR100", "cifar-100-python"),
    "stl10": NamedSet("STL10", "stl10_binary"),
    "fashion-mnist": NamedSet("FashionMNIST", "FashionMNIST/raw"),
    "mnist": NamedSet("MNIST", "MNIST/raw"),
}


def open_built_in(name: str, *, channels: int) -> Contents:
    """Return photos of clothes, Noto emoji or scikit-learn's digits.

    They have 96 (the shorter side), 64 and 8 pixels, in 10, 9 and 10 classes.
    """
    return _open_digits(channels) if name == "digits" else _open_beside(f"{name}.zip")


def _open_beside(archive: str) -> Contents:
    """Return the pictures of an archive in this folder, labelled by their first folder."""
    path = Path(__file__).with_name(archive)
    index = archives.list_archive(path, max_bytes=0)
    assert not index.bad_files
    names = [member.name for member in index.members]
    labelled = number([name.partition("/")[0] for name in names])
    return Contents(Archive(path, index), PackedNames(names), labelled)


def _open_digits(channels: int) -> Contents:
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    digits = load_digits()
    # scikit-learn has them as whole numbers from 0 to 16
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    reader = array_reader(pixels, channels=channels)
    return Contents(reader, numbered_names(len(pixels)), to_labels(digits.target, len(pixels)))


def open_torchvision(name: str, folder: Path, split: str | None, *, channels: int) -> Contents:
    """Return a set of torchvision. Nothing is downloaded.

    Without a split it is the part to train on: for STL-10 all 105,000 pictures that are not
    for testing, most of which have no label, so none has one here.

    Raises:
        ValueError: If its files are missing or are not those that torchvision knows.
    """
    known = TORCHVISION[name]
    if not folder.is_dir():
        raise ValueError(f"{name}:{folder}: there is no folder {folder}")
    try:
        pixels, labels, classes = _read(name, folder, split)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"{name}:{folder}: {folder / known.folder} does not hold the files of this set, whole "
            "(nothing is downloaded here). To get them: python -c 'import torchvision.datasets as "
            f'sets; sets.{known.torchvision_name}("{folder}", download=True)\''
        ) from error
    reader = array_reader(pixels, channels=channels, first=name == "stl10")
    labelled = None if labels is None else to_labels(labels, len(pixels), classes)
    return Contents(reader, numbered_names(len(pixels)), labelled)


def _read(
    name: str, folder: Path, split: str | None
) -> tuple[UInt8[np.ndarray, "images ..."], list[int] | None, list[str]]:
    import torchvision.datasets  # slow to import, and only needed here

    if name == "stl10":
        stl = torchvision.datasets.STL10(folder, split=split or "train+unlabeled")
        return stl.data, stl.labels.tolist() if split else None, list(stl.classes)
    kind = getattr(torchvision.datasets, TORCHVISION[name].torchvision_name)
    loaded = kind(folder, train=split != "test")
    return np.asarray(loaded.data), np.asarray(loaded.targets).tolist(), list(loaded.classes)
