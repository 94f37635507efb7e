"""Sets known by name: the built-in ones, and torchvision's from files that are already there."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from swav.data.sources import archives
from swav.data.sources.arrays import array_reader, numbered_names, to_labels
from swav.data.sources.listing import PackedNames, number
from swav.data.sources.readers import Archive, Contents

BUILT_IN = ("emoji", "digits")
_EMOJI = Path(__file__).with_name("emoji.zip")


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
    """Return the emoji (64 pixels, 9 categories) or scikit-learn's digits (8 pixels)."""
    return _open_emoji() if name == "emoji" else _open_digits(channels)


def _open_emoji() -> Contents:
    """Return Noto emoji; ``Category/subcategory/name.webp``, labelled by category."""
    index = archives.list_archive(_EMOJI, max_bytes=0)
    assert not index.bad_files
    names = [member.name for member in index.members]
    labelled = number([name.partition("/")[0] for name in names])
    return Contents(Archive(_EMOJI, index), PackedNames(names), labelled)


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
