"""Entry points of ``torch.hub.load("FOLDER OF THIS REPOSITORY", NAME, source="local", ...)``."""

import sys
from pathlib import Path

dependencies = ["jaxtyping", "lightning_fabric", "numba", "safetensors", "timm", "torch"]
sys.path.append(str(Path(__file__).parent / "src"))  # last: an installed package goes first

from swav.training.picture_encoder import PictureEncoder
from swav.training.trained_run import load as _load


def encoder(run: str, device: str = "auto") -> PictureEncoder:
    """Return the network of a run folder with its preprocessing: ``encode``, ``assign``."""
    return _load(run, device=device).encoder
