"""What can be evaluated: run folders, timm's networks and folders, state dicts, the baselines."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from swav.config import UsageError
from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import SourceConfig
from swav.evals.harness.baselines import WITHOUT_NETWORK
from swav.evals.harness.extract import pixel_encoder
from swav.evals.harness.patch_kmeans import MAX_FILTERS, patch_kmeans_encoder
from swav.evals.harness.subject import Clusters, FitEncoder, Shown
from swav.exchange import lite0
from swav.exchange.from_state_dict import ENDINGS, load_networks
from swav.exchange.weights import match
from swav.nn.backbones import BackboneConfig
from swav.recipes.train_config import TrainConfig
from swav.run_folder import layout
from swav.training.clusters import clusters_of_method
from swav.training.trained_run import load

FORMS = """\
a run folder (the --out of a training)
a folder that timm opens (with config.json), such as a run's model/
a timm name, for its published weights
a state dict of torchvision or timm (.pth, .safetensors, ...), or NAME=FILE
lite0 (ImageNet weights of EfficientNet-Lite0, which come with swav)
random (an untrained resnet18), or random:NAME
pixels (no network at all)
patch-kmeans (k-means on whitened patches; 200 filters, or --filters N), or patch-kmeans:FILTERS"""
UNTRAINED = "resnet18"
NAMED = (*WITHOUT_NETWORK, "random", "lite0")
"""Models that are no files, alone or before a colon."""
UNKNOWN: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
}
"""Settings of a network that does not tell them."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One thing to evaluate, and how it reads pictures."""

    name: str
    network: nn.Module | None = None
    """None for pixels and patch-kmeans."""
    untrained: nn.Module | None = None
    """The same network before training, None without one."""
    start: Shown | None = None
    """What the training of a run started from; None if that was random."""
    transform: EvalTransform | None = None
    encoder_of: FitEncoder = pixel_encoder
    """What makes features without a network."""
    clusters: Clusters | None = None
    source: SourceConfig = field(default_factory=SourceConfig)
    seed: int = 0
    folder: Path | None = None
    """The run folder, which keeps results and features."""
    config: TrainConfig | None = None
    """Of a run."""


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """What a network that is no run is shown."""

    channels: int = 3
    size: int | None = None
    """Height and width; None: what the network was trained at, 224 for one that was not."""


def is_model(word: str) -> bool:
    """Return whether a word of the command line names a model, and so is not the DATA."""
    path = Path(word)
    if path.exists():
        settings = (path / layout.CONFIG, path / "config.json")
        return path.name.endswith(ENDINGS) or any(file.exists() for file in settings)
    is_named = word.partition(":")[0] in NAMED or timm.is_model(word)
    return is_named or "=" in word


def with_filters(words: Sequence[str], filters: int | None) -> list[str]:
    """Return the words for models, patch-kmeans with its number of filters if one was given.

    Raises:
        ValueError: if there is a number and nothing that has filters.
    """
    if filters is None:
        return list(words)
    if "patch-kmeans" not in words:
        raise UsageError(
            f"--filters {filters} is of patch-kmeans, which is not among the models: name it too"
        )
    return [f"{word}:{filters}" if word == "patch-kmeans" else word for word in words]


def open_model(word: str, model_input: ModelInput, *, allow_factory: Collection[str] = ()) -> Model:
    """Open what a word of the command line names.

    Raises:
        ValueError: if it names nothing, or what it names cannot be opened.
    """
    path = Path(word)
    name, equals, file = word.partition("=")
    kind, _, network = word.partition(":")
    if layout.is_run(path):
        return _run(path, allow_factory)
    if (path / "config.json").exists():
        return _timm(f"local-dir:{path}", model_input, name=path.name)
    if equals or path.is_file():
        return _state_dict(Path(file) if equals else path, name if equals else None, model_input)
    if word in WITHOUT_NETWORK or kind == "patch-kmeans":
        return _without_network(word, model_input)
    if kind == "random":
        return _random(network or UNTRAINED, model_input)
    if word == "lite0":
        return _lite0(model_input)
    if timm.is_model(word):
        return _timm(word, model_input, name=word)
    raise ValueError(
        f"{word} is no run folder (no {layout.CONFIG}): give the --out of a training, or another "
        f"model. A model is one of:\n{FORMS}"
    )


def _run(path: Path, allow_factory: Collection[str]) -> Model:
    run = load(path, allow_factory=allow_factory)
    return Model(
        name=path.resolve().name,
        network=run.backbone,
        untrained=run.untrained(),
        start=run.start(),
        transform=run.transform,
        clusters=clusters_of_method(run.objective),
        source=run.config.data,
        seed=run.config.seed,
        folder=path,
        config=run.config,
    )


def _timm(address: str, model_input: ModelInput, *, name: str) -> Model:
    """Return a network with timm's weights, from a folder or from where timm publishes them."""
    is_folder = address.startswith("local-dir:")
    args: dict[str, Any] = {} if is_folder else {"in_chans": model_input.channels}
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
        model_input = replace(model_input, channels=_settings(network)["input_size"][0])
    return _model(name, network, untrained, model_input)


def _without_network(word: str, model_input: ModelInput) -> Model:
    encoder_of = WITHOUT_NETWORK[word.partition(":")[0]]
    _, colon, filters = word.partition(":")
    if colon:
        if not filters.isdecimal() or not 2 <= int(filters) <= MAX_FILTERS:
            raise ValueError(
                f"{word}: the number of filters must be from 2 to {MAX_FILTERS:,}, "
                "as in patch-kmeans:1600"
            )
        encoder_of = partial(patch_kmeans_encoder, num_filters=int(filters))
    source = SourceConfig(channels=model_input.channels)
    return Model(name=word, encoder_of=encoder_of, source=source)


def _lite0(model_input: ModelInput) -> Model:
    """Return EfficientNet-Lite0 with the weights of its package, beside the untrained network."""
    torch.manual_seed(0)
    untrained, network = (
        timm.create_model(lite0.NETWORK, num_classes=0, in_chans=model_input.channels)
        for _ in range(2)
    )
    network.load_state_dict(match(network.state_dict(), lite0.read()).state)
    return _model("lite0", network, untrained, model_input)


def _random(name: str, model_input: ModelInput) -> Model:
    torch.manual_seed(0)
    config = BackboneConfig(name=name)
    network = config.build(model_input.channels, allow_factory=name)  # the name was typed
    model = _model(f"random:{name}", network, network, model_input)
    return replace(model, name="random" if name == UNTRAINED else model.name)


def _model(name: str, network: nn.Module, untrained: nn.Module, model_input: ModelInput) -> Model:
    """Return a model that is shown what its weights were trained on; its channels are known."""
    settings = {"crop_pct": 1.0, "interpolation": "bicubic", **_settings(network)}
    channels = model_input.channels
    size = (
        settings["input_size"][1:]
        if model_input.size is None
        else (model_input.size, model_input.size)
    )
    for model in {network, untrained}:
        if hasattr(model, "set_input_size") and tuple(size) != tuple(settings["input_size"][1:]):
            model.set_input_size(tuple(size))  # type: ignore[operator]  # of position embeddings
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
    settings: Mapping[str, Any] = vars(network).get("pretrained_cfg", UNKNOWN)
    return settings


def _state_dict(path: Path, name: str | None, model_input: ModelInput) -> Model:
    """Return a network with the weights of a file; every weight of the network must be there."""
    network, untrained = load_networks(path, name, model_input.channels)
    stem = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return _model(path.name, network, untrained, replace(model_input, channels=stem.in_channels))
