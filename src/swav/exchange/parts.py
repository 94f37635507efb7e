"""What a file of weights is made of: backbone, projection head, prototypes, and the rest."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

WEIGHT_NORM = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
"""How torch names lengths and directions, before and since 2.0."""
PROTOTYPES = re.compile(r"(?:prototypes|heads\.|layers)?(\d*)\.?weight")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The tensors of a file by what they are for."""

    layout: str
    backbone: dict[str, Tensor]
    """By the names of timm or torchvision."""
    head: dict[str, Tensor] = field(default_factory=dict)
    """Named as of our methods, ``projector.0.weight``; empty where ours has another form."""
    prototypes: tuple[Tensor, ...] = ()
    ignored: tuple[str, ...] = ()
    """Names in the file of what has no use here."""


def split(
    tensors: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what has the prefix, without it, and what has not."""
    inside = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    return inside, {key: value for key, value in tensors.items() if not key.startswith(prefix)}


def renamed(tensors: Mapping[str, Tensor], name: Callable[[str], str]) -> dict[str, Tensor]:
    """Return the tensors by other names.

    Raises:
        ValueError: if two would have the same.
    """
    named = {name(key): value for key, value in tensors.items()}
    if len(named) < len(tensors):
        raise ValueError("two of its tensors have the same place in the backbone")
    return named


def with_heads(
    layout: str,
    backbone: dict[str, Tensor],
    rest: Mapping[str, Tensor],
    *,
    head: str,
    prototypes: str,
) -> Parts:
    """Return parts whose head and prototypes are in ``rest``, below these prefixes.

    Raises:
        ValueError: if the layers of the head, or head and prototypes, do not fit together.
    """
    layers, others = split(rest, head)
    vectors, others = split(others, prototypes)
    mapped = projector(layers)
    found, unused = prototype_heads(vectors)
    last = [value for key, value in mapped.items() if key.endswith("weight") and value.ndim == 2]
    if last and any(vector.shape[1] != last[-1].shape[0] for vector in found):
        raise ValueError(
            f"prototypes of {found[0].shape[1]} numbers do not fit the projection head, whose "
            f"embeddings have {last[-1].shape[0]}"
        )
    ignored = [
        *others,
        *(f"{prototypes}{key}" for key in unused),
        *(() if mapped else (f"{head}{key}" for key in layers)),
    ]
    return Parts(
        layout=layout, backbone=backbone, head=mapped, prototypes=found, ignored=tuple(ignored)
    )


def prototype_heads(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], list[str]]:
    """Return the vectors of every head, in order, and the names of what is none (biases)."""
    folded = without_weight_norm(tensors)
    heads: dict[int, Tensor] = {}
    for key, value in folded.items():
        named = PROTOTYPES.fullmatch(key)
        if named and value.ndim == 2:
            heads[int(named[1] or 0)] = value
    used = {id(value) for value in heads.values()}
    unused = [key for key, value in folded.items() if id(value) not in used]
    return tuple(heads[index] for index in sorted(heads)), unused


def without_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with each pair of lengths and directions as the weight they mean.

    Raises:
        ValueError: if a pair has not as many lengths as directions.
    """
    folded = dict(tensors)
    for lengths, directions in WEIGHT_NORM:
        for key in [key for key in folded if key.endswith(lengths)]:
            stem = key.removesuffix(lengths)
            if f"{stem}{directions}" not in folded:
                continue
            length, direction = folded.pop(key), folded.pop(f"{stem}{directions}")
            if direction.ndim != 2 or length.shape != (len(direction), 1):
                raise ValueError(f"{key} is not one length for each row of {stem}{directions}")
            folded[f"{stem}weight"] = direction * (length / direction.norm(dim=1, keepdim=True))
    return folded


def projector(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a head named as in ``swav.nn.heads``, nothing if it has another form.

    Ours is linear layers with BatchNorm (in every hidden layer, or in none) and ReLU between them,
    all hidden ones of one width. Elsewhere the numbers of layers count other things, and the bias
    before BatchNorm, which has no effect, is left out: it is zero then.

    Raises:
        ValueError: if its layers do not fit together.
    """
    layers = _layers(tensors)
    linear = [layer for layer in layers if {"weight"} <= layer.keys() <= {"weight", "bias"}]
    norms = [layer for layer in layers if {"running_mean", "weight", "bias"} <= layer.keys()]
    hidden = linear[:-1]
    pairs = zip(hidden, norms, strict=False)
    expected = [layer for pair in pairs for layer in pair] if norms else hidden
    if not linear or list(map(id, layers)) != list(map(id, [*expected, linear[-1]])):
        return {}
    widths = [tuple(layer["weight"].shape) for layer in linear]
    if any(len(shape) != 2 for shape in widths) or len({shape[0] for shape in widths[:-1]}) > 1:
        return {}
    if any(shape[1] != before[0] for before, shape in pairwise(widths)) or any(
        tensor.shape not in ((layer["weight"].shape[0],), ())
        for layer, norm in zip(hidden, norms, strict=False)
        for tensor in norm.values()
    ):
        raise ValueError(f"the layers of its projection head do not fit together: {widths}")
    return _named(linear, norms)


def _layers(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the tensors of each numbered layer, in order; nothing if they have no numbers."""
    if "weight" in tensors and tensors.keys() <= {"weight", "bias"}:
        return [dict(tensors)]
    layers: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        if not index.isdecimal():
            return []
        layers.setdefault(int(index), {})[name] = value
    return [layers[index] for index in sorted(layers)]


def _named(linear: list[dict[str, Tensor]], norms: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    *hidden, last = linear
    step = 3 if norms else 2  # linear, BatchNorm, ReLU
    modules: dict[str, dict[str, Tensor]] = {}
    for index, layer in enumerate(hidden):
        no_bias = {"bias": torch.zeros(len(layer["weight"]), dtype=layer["weight"].dtype)}
        modules[f"projector.{index * step}"] = {**no_bias, **layer}
    for index, norm in enumerate(norms):
        modules[f"projector.{index * step + 1}"] = {"num_batches_tracked": torch.tensor(0), **norm}
    modules[f"projector.{len(hidden) * step}" if hidden else "projector"] = last
    return {
        f"{name}.{key}": value for name, layer in modules.items() for key, value in layer.items()
    }
