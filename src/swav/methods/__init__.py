"""The methods: one file each, reading in the order of its paper."""

from swav.methods.jigsaw import Jigsaw, JigsawConfig
from swav.methods.pirl import PIRL, PIRLConfig
from swav.methods.relative import Relative, RelativeConfig
from swav.methods.rotation import Rotation, RotationConfig
from swav.methods.swav import SwAV, SwAVConfig

MethodConfig = SwAVConfig | RotationConfig | JigsawConfig | RelativeConfig | PIRLConfig
"""The union of all method configurations."""

__all__ = [
    "PIRL",
    "Jigsaw",
    "JigsawConfig",
    "MethodConfig",
    "PIRLConfig",
    "Relative",
    "RelativeConfig",
    "Rotation",
    "RotationConfig",
    "SwAV",
    "SwAVConfig",
]
