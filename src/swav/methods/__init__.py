"""The methods: one file each, reading in the order of its paper."""

from swav.methods.barlow import Barlow, BarlowConfig
from swav.methods.byol import BYOL, BYOLConfig
from swav.methods.cpc import CPC, CPCConfig
from swav.methods.deepcluster import DeepCluster, DeepClusterConfig
from swav.methods.instdisc import InstDisc, InstDiscConfig
from swav.methods.jigsaw import Jigsaw, JigsawConfig
from swav.methods.moco import MoCo, MoCoConfig
from swav.methods.pirl import PIRL, PIRLConfig
from swav.methods.relative import Relative, RelativeConfig
from swav.methods.rotation import Rotation, RotationConfig
from swav.methods.sela import SeLa, SeLaConfig
from swav.methods.simclr import SimCLR, SimCLRConfig
from swav.methods.swav import SwAV, SwAVConfig
from swav.methods.vicreg import VICReg, VICRegConfig

MethodConfig = (
    SwAVConfig
    | DeepClusterConfig
    | SeLaConfig
    | SimCLRConfig
    | MoCoConfig
    | BYOLConfig
    | InstDiscConfig
    | BarlowConfig
    | VICRegConfig
    | RotationConfig
    | JigsawConfig
    | RelativeConfig
    | PIRLConfig
    | CPCConfig
)
"""The union of all method configurations."""

__all__ = [
    "BYOL",
    "CPC",
    "PIRL",
    "BYOLConfig",
    "Barlow",
    "BarlowConfig",
    "CPCConfig",
    "DeepCluster",
    "DeepClusterConfig",
    "InstDisc",
    "InstDiscConfig",
    "Jigsaw",
    "JigsawConfig",
    "MethodConfig",
    "MoCo",
    "MoCoConfig",
    "PIRLConfig",
    "Relative",
    "RelativeConfig",
    "Rotation",
    "RotationConfig",
    "SeLa",
    "SeLaConfig",
    "SimCLR",
    "SimCLRConfig",
    "SwAV",
    "SwAVConfig",
    "VICReg",
    "VICRegConfig",
]
