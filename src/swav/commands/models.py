"""What can be evaluated: run folders, timm's networks and folders, state dicts, the baselines."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from swav.commands.runs import clusters_of_method, load
from swav.data.sources import SourceConfig
from swav.data.transform import EvalTransform
from swav.evals.subject import Clusters
from swav.nn.backbones import BackboneConfig
from swav.recipes.train_config import TrainConfig

FORMS = """\
a run folder (the --out of a training)
a folder that timm opens (with config.json), such as a run's model/
a timm name, for its published weights
a state dict of a torchvision ResNet (.pth, .safetensors, ...), or NAME=FILE of another network
random (an untrained resnet18), or random:NAME
pixels (no network at all)"""
STATE_DICTS = (".pth", ".pt", ".pth.tar", ".bin", ".safetensors")
UNTRAINED = "resnet18"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IGNORED = ("fc.", "head.", "classifier.", "projection_head.", "prototypes")
"""Tensors of a state dict that belong to no backbone."""

RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
"""By blocks of each stage, and whether these are bottlenecks."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One thing to evaluate, and how it reads pictures."""

    name: str
    network: nn.Module | None = None
    """None for raw pixels."""
    untrained: nn.Module | None = None
    """The same network before training, None for raw pixels."""
    transform: EvalTransform | None = None
    clusters: Clusters | None = None
    source: SourceConfig = field(default_factory=SourceConfig)
    seed: int = 0
    folder: Path | None = None
    """The run folder, which keeps results and features."""
    config: TrainConfig | None = None
    """Of a run."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a network that is no run is shown."""

    channels: int = 3
    size: int | None = None
    """Height and width; None: what the network was trained at, 224 for one that was not."""


def is_model(word: str) -> bool:
    """Return whether a word of the command line names a model, and so is not the DATA."""
    path = Path(word)
    if path.exists():
        settings = (path / "config.yaml", path / "config.json")
        return path.name.endswith(STATE_DICTS) or any(each.exists() for each in settings)
    is_named = word == "pixels" or word.partition(":")[0] == "random" or timm.is_model(word)
    return is_named or "=" in word


def open_model(word: str, shown: Input) -> Model:
    """Open what a word of the command line names.

    Raises:
        ValueError: if it names nothing, or what it names cannot be opened.
    """
    path = Path(word)
    name, equals, file = word.partition("=")
    kind, _, network = word.partition(":")
    if (path / "config.yaml").exists():
        return _run(path)
    if (path / "config.json").exists():
        return _timm(f"local-dir:{path}", shown, name=path.name)
    if equals or path.is_file():
        return _state_dict(Path(file) if equals else path, name if equals else None, shown)
    if word == "pixels":
        return Model(name="pixels", source=SourceConfig(channels=shown.channels))
    if kind == "random":
        return _random(network or UNTRAINED, shown)
    if timm.is_model(word):
        return _timm(word, shown, name=word)
    raise ValueError(
        f"{word} is no run folder (no config.yaml): give the --out of a training, or another "
        f"model. A model is one of:\n{FORMS}"
    )


def _run(path: Path) -> Model:
    run = load(path)
    return Model(
        name=path.resolve().name,
        network=run.backbone,
        untrained=run.untrained(),
        transform=run.transform,
        clusters=clusters_of_method(run.objective),
        source=run.config.data,
        seed=run.config.seed,
        folder=path,
        config=run.config,
    )


def _timm(address: str, shown: Input, *, name: str) -> Model:
    """Return a network with timm's weights, from a folder or from where timm publishes them."""
    is_folder = address.startswith("local-dir:")
    args: dict[str, Any] = {} if is_folder else {"in_chans": shown.channels}
    torch.manual_seed(0)
    untrained = timm.create_model(address, pretrained=False, num_classes=0, **args)
    try:
        network = timm.create_model(address, pretrained=True, num_classes=0, **args)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{name}: timm cannot get the weights ({error}). Without a network connection give "
            f"a folder or a file of weights, or random:{name}"
        ) from error
    if is_folder:
        shown = replace(shown, channels=_settings(network)["input_size"][0])
    return _model(name, network, untrained, shown)


def _random(name: str, shown: Input) -> Model:
    torch.manual_seed(0)
    network = BackboneConfig(name=name).build(shown.channels)
    model = _model(f"random:{name}", network, network, shown)
    return replace(model, name="random" if name == UNTRAINED else model.name)


def _model(name: str, network: nn.Module, untrained: nn.Module, shown: Input) -> Model:
    """Return a model that is shown what its weights were trained on; its channels are known."""
    settings = {"crop_pct": 1.0, "interpolation": "bicubic", **_settings(network)}
    channels = shown.channels
    size = settings["input_size"][1:] if shown.size is None else (shown.size, shown.size)
    for each in {network, untrained}:
        if hasattr(each, "set_input_size") and tuple(size) != tuple(settings["input_size"][1:]):
            each.set_input_size(tuple(size))  # type: ignore[operator]  # of position embeddings
    known = len(settings["mean"]) == channels
    transform = EvalTransform.from_timm(
        {
            **settings,
            "input_size": (channels, *size),
            "mean": settings["mean"] if known else (0.5,) * channels,
            "std": settings["std"] if known else (0.25,) * channels,
        }
    )
    return Model(
        name=name,
        network=network.eval(),
        untrained=untrained.eval(),
        transform=transform,
        source=SourceConfig(channels=channels),
    )


def _settings(network: nn.Module) -> Mapping[str, Any]:
    return network.pretrained_cfg  # type: ignore[return-value]


def _state_dict(path: Path, name: str | None, shown: Input) -> Model:
    """Return a network with the weights of a file; every weight of the network must be there."""
    tensors = read_state_dict(path)
    name = name or guess_network(tensors, path)
    channels = tensors["conv1.weight"].shape[1] if "conv1.weight" in tensors else shown.channels
    torch.manual_seed(0)
    untrained = BackboneConfig(name=name).build(channels)
    torch.manual_seed(0)
    network = BackboneConfig(name=name).build(channels)
    try:
        missing, unexpected = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {error}") from error
    if missing or unexpected:
        raise ValueError(
            f"{path} does not hold the weights of {name}: missing {_few(missing)}, "
            f"unknown {_few(unexpected)}; NAME={path} says which timm network it is"
        )
    return _model(path.name, network, untrained, replace(shown, channels=channels))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the backbone's tensors of a file, without prefix, wrapper and heads.

    Raises:
        ValueError: if the file cannot be read as such.
    """
    try:
        if path.suffix == ".safetensors":
            values: Any = safetensors.torch.load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except Exception as error:  # pickles and archives fail in many ways
        raise ValueError(f"{path} cannot be read as a state dict: {error}") from error
    for wrapper in ("state_dict", "model"):
        values = values.get(wrapper, values) if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not all(isinstance(v, Tensor) for v in values.values()):
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors is needed")
    named = {str(key).removeprefix("module."): value for key, value in values.items()}
    return {key: value for key, value in named.items() if not key.startswith(IGNORED)}


def guess_network(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Return the timm name of a torchvision ResNet of the usual width.

    Raises:
        ValueError: if the tensors are those of another network.
    """
    blocks = tuple(
        len({key.split(".")[1] for key in tensors if key.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    name = RESNETS.get((blocks, "layer1.0.conv3.weight" in tensors))
    stem = tensors.get("conv1.weight", torch.empty(0))
    if name is not None and stem.shape[:1] == (64,):
        return name
    wide = {128: "resnet50w2", 256: "resnet50w4", 320: "resnet50w5"}.get(len(stem))
    if name == "resnet50" and wide is not None:
        return wide
    raise ValueError(
        f"{path} is no torchvision ResNet: say which timm network it is, with NAME={path}"
    )


def _few(names: list[str]) -> str:
    return "nothing" if not names else f"{', '.join(names[:3])}{', ...' if names[3:] else ''}"
