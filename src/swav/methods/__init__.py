"""The methods: one file each, reading in the order of its paper."""

from swav.methods.swav import SwAV, SwAVConfig

MethodConfig = SwAVConfig
"""The union of all method configurations."""

__all__ = ["MethodConfig", "SwAV", "SwAVConfig"]
