"""The networks of a run, from its configuration: the method around a backbone, and its input."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from swav.config import UsageError
from swav.data.eval_transform import EvalTransform
from swav.engine.objective import Objective, TrainingFacts
from swav.recipes.train_config import TrainConfig
from swav.training.adaptation import freeze


def build_objective(
    config: TrainConfig,
    *,
    num_images: int,
    weights: Mapping[str, Tensor] | None = None,
    allow_factory: Collection[str] = (),
    to_train: bool = False,
) -> Objective:
    """Return the method around a backbone, fresh (the same for the same seed) or with weights.

    Tensors of the backbone that are not among the weights stay fresh.

    Args:
        config: of the run.
        num_images: pictures of the data.
        weights: of the backbone.
        allow_factory: names of factories that may build the backbone.
        to_train: freeze what a training leaves as the weights were.
    """
    torch.manual_seed(config.seed)
    backbone = config.backbone.build(config.data.channels, allow_factory=allow_factory)
    if weights is not None:
        backbone.load_state_dict({**backbone.state_dict(), **weights})
    if to_train:
        freeze(backbone, config)
    facts = TrainingFacts(
        feature_dim=int(backbone.num_features),  # type: ignore[arg-type]
        num_images=num_images,
        global_batch=config.optim.batch_size,
    )
    return config.method.build(backbone, facts)


def untrained_objective(
    config: TrainConfig, *, num_images: int, allow_factory: Collection[str] = ()
) -> Objective:
    """Return the method with random weights, also where the run began with published ones."""
    return build_objective(config, num_images=num_images, allow_factory=allow_factory)


def untrained_network(
    config: TrainConfig, *, num_images: int, allow_factory: Collection[str] = ()
) -> nn.Module:
    """Return the network of a run with random weights."""
    return untrained_objective(config, num_images=num_images, allow_factory=allow_factory).encoder


def check_sizes(config: TrainConfig, objective: Objective) -> None:
    """Refuse views that the network cannot read, such as smaller ones than its filters."""
    # a pretext task cuts them, and says itself what is too small; features have no size
    if config.method.pretext is not None or config.tuning.part == "head":
        return
    encoder = objective.encoder.eval()
    device = next(encoder.parameters()).device
    for group in config.views.groups:
        try:
            with torch.no_grad():
                encoder(torch.zeros(1, config.data.channels, *group.size, device=device))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"crops {group.description} cannot be read by {config.backbone.name} ({error}): "
                "use --crops of larger sizes, or another --backbone"
            ) from error
    objective.train()


def transform_of(config: TrainConfig) -> EvalTransform:
    """Return the evaluation transform of a training: target size, its mean and deviation.

    A network that starts from the weights of others is shown what these were trained on.
    """
    if config.input is not None:
        return config.input
    return EvalTransform(
        input_size=(config.data.channels, *config.views.groups[0].size),
        mean=config.views.mean,
        std=config.views.std,
    )
