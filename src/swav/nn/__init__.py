"""Modules: backbones, heads, prototypes, queue, moving averages.

Importing this room registers our own backbones with timm.
"""

from swav.nn import backbones

__all__ = ["backbones"]
