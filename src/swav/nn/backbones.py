"""Backbones: any timm model, a factory of one's own, and the networks timm does not have."""

import importlib
import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from swav.config import UsageError

OF_FIRST_WEIGHTS = ("zero_init_last",)
"""Arguments that say how a network begins, and not what it is."""


LOADING = frozenset(
    ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
)
"""Arguments of ``timm.create_model`` by which weights are found and read."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A network by timm name, or ``package.module:factory``; pooled features come out.

    A config may come from anyone, so a factory is imported only by those who are told its name
    a second time, by a person.
    """

    name: str = "resnet50"
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the builder, as in ``timm.create_model``; kept in the exported model."""

    def __post_init__(self) -> None:
        loading = sorted(LOADING.intersection(self.args))
        if loading:
            raise ValueError(
                f"backbone args {', '.join(loading)} would have timm read a file or an address "
                "that a config names: leave them out, and give weights by --init"
            )

    @property
    def title(self) -> str:
        """The name, with the arguments that make it another network than that of the name."""
        others = {key: value for key, value in self.args.items() if key not in OF_FIRST_WEIGHTS}
        words = "; ".join(_in_words(key, value) for key, value in others.items())
        return f"{self.name} ({words})" if words else self.name

    def check_factory(self, allow_factory: Collection[str]) -> None:
        """Raise ``ValueError`` if this names a factory that is not allowed."""
        allowed = (allow_factory,) if isinstance(allow_factory, str) else allow_factory
        if ":" in self.name and self.name not in allowed:
            raise ValueError(
                f"backbone {self.name!r} is a factory, code that a config or run folder may name "
                f"but not run by itself: if you trust it, add --allow-factory {self.name} "
                f"(Python: allow_factory={self.name!r})"
            )

    def build(
        self,
        channels: int = 3,
        *,
        allow_factory: Collection[str] = (),
        published: Path | None = None,
    ) -> nn.Module:
        """Return the network with ``channels`` inputs and no classifier.

        ``network(pictures)`` is (batch, features) and ``network.num_features`` the size.

        Args:
            channels: of the pictures.
            allow_factory: names of factories that may be imported and run.
            published: file of the weights that timm publishes for this name, to fill it with.

        Raises:
            ValueError: if the name is unknown or not allowed, or the arguments do not fit it.
        """
        self.check_factory(allow_factory)
        if ":" in self.name:
            return _from_factory(self.name, {**self.args, "in_chans": channels})
        if not timm.is_model(self.name):
            close = get_close_matches(self.name, timm.list_models(), n=3, cutoff=0.4)
            raise UsageError(
                f"unknown backbone {self.name!r}: did you mean {', '.join(close) or 'resnet18'}? "
                "`swav list backbones` names them all; your own is package.module:factory"
            )
        args = {key: _tuples(value) for key, value in self.args.items()}
        # small crops have other sizes than the network was built for
        sizes = {"dynamic_img_size": True} if _is_transformer(self.name) else {}
        try:
            model: nn.Module = timm.create_model(
                self.name,
                pretrained=published is not None,
                # the file is what timm's hub gives, also where other sources need a loader
                pretrained_cfg_overlay={"file": str(published), "custom_load": False}
                if published
                else None,
                num_classes=0,
                in_chans=channels,
                **{**sizes, **args},
            )
        except TypeError as error:
            raise ValueError(
                f"backbone.args {self.args} do not fit {self.name}: {error}"
            ) from error
        return model


def encode_views(
    backbone: nn.Module, views: Sequence[Float[Tensor, "batch channels _ _"]]
) -> list[Float[Tensor, "batch features"]]:
    """Return the features of every view, one backbone pass for each run of equal shapes.

    BatchNorm sees the views of one shape together (SwAV's reference groups by width alone).
    """
    features: list[Tensor] = []
    start = 0
    for end in range(1, len(views) + 1):
        if end == len(views) or views[end].shape[1:] != views[start].shape[1:]:
            together = torch.cat(list(views[start:end]))
            # the CPU and tensor cores convolve fastest in this layout
            together = together.contiguous(memory_format=torch.channels_last)
            features.extend(backbone(together).chunk(end - start))
            start = end
    return features


def _from_factory(name: str, args: dict[str, Any]) -> nn.Module:
    module_name, _, factory_name = name.partition(":")
    try:
        factory = vars(importlib.import_module(module_name))[factory_name]
    except (ImportError, KeyError) as error:
        raise UsageError(f"backbone {name!r} cannot be imported: {error!r}") from error
    try:
        # a TypeError from inside the factory would look like a wrong argument
        inspect.signature(factory).bind(**args)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"backbone {name!r} is no factory of a network that takes {', '.join(args)}: {error}"
        ) from error
    model = factory(**args)
    if not isinstance(model, nn.Module) or not isinstance(vars(model).get("num_features"), int):
        raise UsageError(f"backbone {name!r} must return an nn.Module with an int num_features")
    return model


def _is_transformer(name: str) -> bool:
    return name.startswith(("vit_", "deit", "eva02", "beit"))


def _in_words(key: str, value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return f"{key.replace('_', ' ')} {','.join(map(str, values))}"


def _tuples(value: Any) -> Any:
    """Turn lists, which YAML and JSON give, into the tuples that builders expect."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


_RESNET: Any = ResNet  # its annotations ask for an instance where it takes a class


def _cifar_resnet(layers: Sequence[int], *, in_chans: int = 3, **args: Any) -> nn.Module:
    """Return a ResNet for small pictures: 3x3 stem of stride one, no pooling."""
    # timm starts residual branches at zero by default, the reference of SwAV does not
    model = _RESNET(BasicBlock, layers, in_chans=in_chans, zero_init_last=False, **args)
    model.conv1 = _stem(nn.Conv2d(in_chans, 64, kernel_size=3, padding=1, bias=False))
    # 32 pixels would be 8 after the usual stem; solo-learn and lightly do the same
    model.maxpool = nn.Identity()
    return _module(model)


def _wide_resnet50(width: int, *, in_chans: int = 3, **args: Any) -> nn.Module:
    """Return ResNet-50 with every layer ``width`` times as wide, the stem too (SwAV, sec. 4)."""
    model = _RESNET(
        Bottleneck,
        (3, 4, 6, 3),
        in_chans=in_chans,
        channels=tuple(width * channels for channels in (64, 128, 256, 512)),
        stem_type="deep",  # only to widen what follows the stem
        stem_width=32 * width,
        zero_init_last=False,
        **args,
    )
    # timm widens the stem only by three 3x3 convolutions; the published one is 7x7
    model.conv1 = _stem(
        nn.Conv2d(in_chans, 64 * width, kernel_size=7, stride=2, padding=3, bias=False)
    )
    return _module(model)


def _stem(convolution: nn.Conv2d) -> nn.Conv2d:
    # as timm and torchvision initialise every convolution; these came after that
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _module(model: Any) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model


def _build(builder: Any, variant: str, pretrained: bool, **args: Any) -> nn.Module:
    model: nn.Module = build_model_with_cfg(builder, variant, pretrained, **args)
    return model


def _default(size: int) -> dict[str, Any]:
    return {
        "input_size": (3, size, size),
        "first_conv": "conv1",
        "classifier": "fc",
        "num_classes": 1000,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
    }


default_cfgs = {
    "cifar_resnet18": _default(32),
    "resnet50w2": _default(224),
    "resnet50w4": _default(224),
    "resnet50w5": _default(224),
}


def is_own(name: str) -> bool:
    """Return whether timm knows a network only after ``import swav.nn``."""
    return timm.is_model(name) and timm.model_entrypoint(name).__module__ == __name__


@register_model
def cifar_resnet18(pretrained: bool = False, **args: Any) -> nn.Module:
    """Return ResNet-18 with a stem for 32-pixel pictures."""
    return _build(_cifar_resnet, "cifar_resnet18", pretrained, layers=(2, 2, 2, 2), **args)


@register_model
def resnet50w2(pretrained: bool = False, **args: Any) -> nn.Module:
    """Return ResNet-50, two times as wide (94 M parameters)."""
    return _build(_wide_resnet50, "resnet50w2", pretrained, width=2, **args)


@register_model
def resnet50w4(pretrained: bool = False, **args: Any) -> nn.Module:
    """Return ResNet-50, four times as wide (375 M parameters)."""
    return _build(_wide_resnet50, "resnet50w4", pretrained, width=4, **args)


@register_model
def resnet50w5(pretrained: bool = False, **args: Any) -> nn.Module:
    """Return ResNet-50, five times as wide (586 M parameters)."""
    return _build(_wide_resnet50, "resnet50w5", pretrained, width=5, **args)
