"""The methods: one file each, reading in the order of its paper."""

from swav.data.tiles import Pretext
from swav.methods.jigsaw import Jigsaw, JigsawConfig
from swav.methods.pirl import PIRL, PIRLConfig
from swav.methods.relative import Relative, RelativeConfig
from swav.methods.rotation import Rotation, RotationConfig
from swav.methods.swav import SwAV, SwAVConfig

PretextConfig = RotationConfig | JigsawConfig | RelativeConfig | PIRLConfig
"""The methods that ask about rotated views or tiles."""

MethodConfig = SwAVConfig | PretextConfig
"""The union of all method configurations."""


def pretext_of(method: MethodConfig) -> Pretext | None:
    """Return what a method makes of the views of a batch; None if it takes them as they are."""
    return method.pretext if isinstance(method, PretextConfig) else None


__all__ = [
    "PIRL",
    "Jigsaw",
    "JigsawConfig",
    "MethodConfig",
    "PIRLConfig",
    "PretextConfig",
    "Relative",
    "RelativeConfig",
    "Rotation",
    "RotationConfig",
    "SwAV",
    "SwAVConfig",
    "pretext_of",
]
