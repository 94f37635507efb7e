"""Files of DINO and DINOv2: a ViT with nearly the names of timm, and heads of another form.

Their heads have GELU and weight-normalised outputs of tens of thousands, and are not read.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from swav.exchange.parts import Parts, renamed, split

HEADS = ("head.mlp.", "head.last_layer.", "dino_head.", "ibot_head.")
CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.")
"""DINOv2 trains with blocks in chunks, and counts them through."""


def parts(tensors: Mapping[str, Tensor]) -> Parts | None:
    """Return the parts, None if the tensors are named in another way."""
    backbone, rest = split(tensors, "backbone.")
    if not backbone:
        rest = {key: value for key, value in tensors.items() if key.startswith(HEADS)}
        backbone = {key: value for key, value in tensors.items() if key not in rest}
    is_second = "cls_token" in backbone and bool(
        {"mask_token", "register_tokens"} & backbone.keys()
    )
    if not is_second and not any(key.startswith(HEADS) for key in rest):
        return None
    ignored = [*rest, *(["mask_token"] if "mask_token" in backbone else [])]
    return Parts(
        layout="dinov2" if is_second else "dino",
        backbone=_as_in_timm(backbone),
        ignored=tuple(ignored),
    )


def _as_in_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by timm's names; it has no mask token.

    With registers, timm adds positions to patches alone: that of the class token goes into it.

    Raises:
        ValueError: if there are registers and no positions, or two tensors for one place.
    """
    kept = {key: value for key, value in tensors.items() if key != "mask_token"}
    named = renamed(kept, _name)
    if "register_tokens" in named:
        if not {"pos_embed", "cls_token"} <= named.keys():
            raise ValueError("it has register_tokens, but no pos_embed or cls_token")
        named["reg_token"] = named.pop("register_tokens")
        positions = named["pos_embed"]
        named["cls_token"] = named["cls_token"] + positions[:, :1]
        named["pos_embed"] = positions[:, 1:]
    return named


def _name(key: str) -> str:
    name = CHUNK.sub(r"blocks.\1.", key)
    return name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
