"""``swav import``: a run folder of the weights of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Suppress

from swav.config import UsageError
from swav.nn.backbones import BackboneConfig
from swav.training.imported import check_vacant, open_import


def import_(
    file: str,
    /,
    *,
    out: Path | None = None,
    backbone: str | None = None,
    backbone_args: Annotated[Mapping[str, Any] | None, Suppress] = None,
    method: str | None = None,
    allow_missing: bool = False,
    dry_run: bool = False,
) -> Path | None:
    """Make a run folder of the weights of others, with head and prototypes where they have any.

    swav evaluate, embed and cluster take the folder and pictures, swav train --init starts from
    it. Prints what was found, and what of it has no use.

    Args:
        file: weights (.safetensors, .pth, ...) of torchvision, timm, SwAV, DeepCluster-v2, VISSL,
            lightly, solo-learn, DINO or DINOv2; or lite0 or timm:NAME, for published ones.
        out: run folder, new or empty.
        backbone: timm network that the weights are of; ResNets tell it. Its arguments are
            --backbone.args.NAME VALUE.
        backbone_args: the same as a mapping.
        method: whose head and prototypes they are (swav, deepcluster, sela; without prototypes
            simclr, barlow, vicreg); by default swav for prototypes of one head, deepcluster for
            those of several, simclr for none.
        allow_missing: import even if weights of the backbone are missing, which are random then.
        dry_run: print what was found, and stop.

    Raises:
        ValueError: if they cannot be read or do not fit; nothing is written then.
    """
    if out is None and not dry_run:
        raise UsageError("swav import makes a run folder: name it with --out")
    if backbone_args and backbone is None:
        raise UsageError("--backbone.args are of the network that --backbone names: give both")
    network = None
    if backbone is not None:
        network = BackboneConfig(name=backbone, args=dict(backbone_args or {}))
    if out is not None:
        check_vacant(out)
    opened = open_import(file, network, method=method, allow_missing=allow_missing)
    print("\n".join(opened.summary))
    if dry_run or out is None:
        return None
    folder = opened.write(out)
    print(folder)
    return folder
