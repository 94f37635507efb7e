"""Weights of others as plain values: what a file holds, and what of it a network takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from timm.models import adapt_input_conv
from torch import Tensor

from swav.exchange import from_dino, from_lightly, from_official, from_solo, from_vissl
from swav.exchange.parts import Parts, split
from swav.exchange.tensor_file import check_tensors, open_tensor_file

READERS: tuple[Callable[[Mapping[str, Tensor]], Parts | None], ...] = (
    from_vissl.parts,
    from_official.parts,
    from_lightly.parts,
    from_dino.parts,
    from_solo.parts,
)
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher", "student")
"""Where scripts keep the tensors: timm, MoCo and Lightning in the first, torchvision in the third,
DINO in the last two, of which it evaluates the teacher."""
MOST_WRAPPERS = 3
"""A pickle may be in itself."""
PREFIXES = ("module.", "_orig_mod.")
"""Left over from DistributedDataParallel, in SwAV's own files too, and from torch.compile."""
CLASSIFIERS = ("fc.", "head.", "head_dist.", "classifier.")
COUNTER = "num_batches_tracked"
"""Of BatchNorm, which files from before torch 0.4.1 lack and nothing here reads."""
LEAST_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """The weights in a file of others. Nothing was built from them."""

    layout: str
    """Whose names the tensors have: plain (torchvision or timm), swav, vissl, lightly, solo-learn,
    dino, dinov2 or lite0."""
    backbone: dict[str, Tensor]
    """By the names of torchvision or timm, perhaps with a classifier."""
    head: dict[str, Tensor]
    """The projection head as ``projector.0.weight``; empty if there is none of our form."""
    prototypes: tuple[Tensor, ...]
    """(prototypes, embed) of every head."""
    ignored: tuple[str, ...]
    """What else is in the file, by its names there."""
    source: Path
    sha256: str
    licence: str | None


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What a network takes from the weights of others."""

    state: dict[str, Tensor]
    """Of the whole network; a tensor that the file lacks is the network's own."""
    matched: tuple[str, ...]
    adapted: tuple[str, ...]
    """Filters of three colours, made to fit pictures of other channels."""
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    """With both shapes."""
    unexpected: tuple[str, ...]
    """In the file and not in the network."""
    ignored: tuple[str, ...]
    """Classifiers of the file, and what is of no backbone."""

    def summary(self) -> str:
        """Return one line that says all of it."""
        counted = [
            ("summed or spread over channels", self.adapted),
            ("missing", self.missing),
            ("of another shape", self.misshapen),
            ("unexpected", self.unexpected),
            ("ignored", self.ignored),
        ]
        parts = [f"{len(names)} {what} ({few(names)})" for what, names in counted if names]
        return ", ".join([f"{len(self.matched)} tensors matched", *parts])


def read_weights(path: Path) -> ForeignWeights:
    """Return the weights in a file of safetensors or ``torch.save``; its names tell the layout.

    Raises:
        ValueError: if it cannot be read, holds anything that is no plain value, or no weights.
    """
    opened = open_tensor_file(path)
    try:
        tree, ignored = _unwrapped(from_vissl.flat(opened.tree))
        tensors = _without_prefixes(check_tensors(tree, opened.size))
        parts = _parts(tensors)
    except (ValueError, RuntimeError, TypeError) as error:  # or torch's, of shapes in no relation
        raise ValueError(f"{path} cannot be used: {str(error).splitlines()[0]}") from error
    return ForeignWeights(
        layout=parts.layout,
        backbone=parts.backbone,
        head=parts.head,
        prototypes=parts.prototypes,
        ignored=(*ignored, *parts.ignored),
        source=path,
        sha256=opened.sha256,
        licence=opened.licence,
    )


def match(
    backbone_state: Mapping[str, Tensor], foreign: ForeignWeights, *, allow_missing: bool = False
) -> Matched:
    """Return what the network of this state takes from the weights.

    Args:
        backbone_state: of the untrained network.
        foreign: the weights.
        allow_missing: whether a tenth of the tensors may be missing or of another shape.

    Raises:
        ValueError: if one is and that is not allowed, or if less than nine tenths of the network,
            or of the file, fit the other.
    """
    state = dict(backbone_state)
    missing, misshapen, matched, adapted = [], [], [], []
    for name, own in backbone_state.items():
        theirs = foreign.backbone.get(name)
        if theirs is not None and _sees_colours(theirs, own):
            theirs = adapt_input_conv(own.shape[1], theirs)
            adapted.append(f"{name} to {own.shape[1]}")
        if theirs is None:
            if not name.endswith(COUNTER):
                missing.append(name)
        elif theirs.shape != own.shape or theirs.is_floating_point() != own.is_floating_point():
            misshapen.append(f"{name} {_form(theirs)} in the file, {_form(own)} in the network")
        else:
            state[name] = theirs
            matched.append(name)
    others = [name for name in foreign.backbone if name not in backbone_state]
    classifiers = [name for name in others if name.startswith(CLASSIFIERS)]
    found = Matched(
        state=state,
        matched=tuple(matched),
        adapted=tuple(adapted),
        missing=tuple(missing),
        misshapen=tuple(misshapen),
        unexpected=tuple(name for name in others if name not in classifiers),
        ignored=(*classifiers, *foreign.ignored),
    )
    _check(found, foreign, allow_missing=allow_missing)
    return found


def _sees_colours(theirs: Tensor, own: Tensor) -> bool:
    """Return whether these are first filters of three colours, and the network has others."""
    if theirs.dim() != 4 or own.dim() != 4 or not theirs.is_floating_point():
        return False
    others = [shape[:1] + shape[2:] for shape in (theirs.shape, own.shape)]
    return theirs.shape[1] == 3 != own.shape[1] and others[0] == others[1]


def _check(found: Matched, foreign: ForeignWeights, *, allow_missing: bool) -> None:
    absent = len(found.missing) + len(found.misshapen)
    num_matched = len(found.matched)
    least = LEAST_SHARE * (num_matched + max(absent, len(found.unexpected)))
    if num_matched and num_matched >= least and (allow_missing or not absent):
        return
    remedy = "Name the network that the weights are of"
    if num_matched and num_matched >= least:
        remedy += ", or allow missing tensors: they start untrained"
    close = {name: get_close_matches(name, found.unexpected, n=1) for name in found.missing[:3]}
    pairs = [f"{name}: {nearest[0]}" for name, nearest in close.items() if nearest]
    near = f" (nearest in the file to {', '.join(pairs)})" if pairs else ""
    raise ValueError(
        f"{foreign.source} ({foreign.layout} layout) does not fit the network: "
        f"{found.summary()}{near}. {remedy}"
    )


def _unwrapped(tree: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return the tensors in a tree, and the names of what was saved beside them."""
    ignored: list[str] = []
    for _ in range(MOST_WRAPPERS):
        wrapper = next((key for key in WRAPPERS if isinstance(tree.get(key), Mapping)), None)
        if wrapper is None:
            break
        ignored += [str(key) for key in tree if key != wrapper]
        tree = tree[wrapper]
    return tree, ignored


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:  # either may be around the other
        stripped = {key.removeprefix(prefix): value for key, value in tensors.items()}
        if len(stripped) < len(tensors):
            raise ValueError(f"it has the same name with and without {prefix}")
        tensors = stripped
    return tensors


def _parts(tensors: dict[str, Tensor]) -> Parts:
    for read in READERS:
        parts = read(tensors)
        if parts is not None:
            return parts
    backbone, rest = split(tensors, "backbone.")
    if backbone:
        return Parts(layout="plain", backbone=backbone, ignored=tuple(rest))
    return Parts(layout="plain", backbone=tensors)


def _form(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f"{tensor.dtype} ".removeprefix("torch.")
    return f"{kind}{'x'.join(map(str, tensor.shape)) or 'one number'}"


def few(names: tuple[str, ...]) -> str:
    """Return the first three of the names."""
    return f"{', '.join(names[:3])}{', ...' if names[3:] else ''}"
