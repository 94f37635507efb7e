"""Files of VISSL: a trunk of feature blocks and a list of heads, below ``classy_state_dict``."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from swav.exchange.parts import Parts, split, with_heads


def flat(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return trunk and heads of a checkpoint by one name a tensor; other trees as they are."""
    if "classy_state_dict" not in tree:
        return tree
    model: Any = tree
    for key in ("classy_state_dict", "base_model", "model"):
        model = model.get(key) if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(model.get("trunk"), Mapping):
        raise ValueError("its classy_state_dict has no base_model.model.trunk, as VISSL's have")
    heads = model.get("heads", {})
    if isinstance(heads, list):  # one state dict for each head where FSDP trained it
        heads = {f"{i}.{key}": head[key] for i, head in enumerate(heads) for key in head}
    return {
        **{f"trunk.{key}": value for key, value in model["trunk"].items()},
        **{f"heads.{key}": value for key, value in heads.items()},
    }


def parts(tensors: Mapping[str, Tensor]) -> Parts | None:
    """Return the parts, None if the tensors are named in another way."""
    for prefix in (
        "trunk._feature_blocks.",
        "trunk.base_model._feature_blocks.",
        "_feature_blocks.",
    ):
        backbone, rest = split(tensors, prefix)
        if backbone:
            return with_heads(
                "vissl",
                backbone,
                rest,
                head="heads.0.projection_head.",
                prototypes="heads.0.prototypes",
            )
    return None
