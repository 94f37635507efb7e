"""Sets of small pictures for the tests of this folder."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from swav.data.sources.open import SourceConfig, open_source
from swav.data.sources.pictures import Pictures


def png(seed: int = 0, *, height: int = 4, width: int = 6) -> bytes:
    """A small picture of its own for each seed."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", compress_level=1)
    return file.getvalue()


def fill(root: Path, names: Iterable[str]) -> Path:
    """Write a picture of its own under each name."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed))
    return root


def opened(data: object, **options: object) -> Pictures:
    return open_source(SourceConfig(data=str(data), **options))


def same(first: Pictures, second: Pictures) -> bool:
    return len(first) == len(second) and all(
        torch.equal(first[place], second[place]) for place in range(len(first))
    )
