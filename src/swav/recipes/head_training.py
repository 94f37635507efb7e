"""The settings that train the head of a method alone, on features that are made once."""

from dataclasses import replace

from swav.engine.optim import OptimConfig
from swav.methods import MethodConfig, SwAVConfig
from swav.recipes.train_config import TrainConfig

HEAD_STEPS = 300
HEAD_LEARNING_RATE = 1e-3
SHORT_AVERAGE = 0.99
"""Momentum of moving averages, at most: they have to arrive within so few steps."""


def head_training(config: TrainConfig, num_images: int) -> TrainConfig:
    """Return the settings that train the head of a config's method, with batches of its size."""
    optim = config.optim
    epochs = -(-HEAD_STEPS // max(num_images // optim.batch_size, 1))
    return replace(
        config,
        tune="head",
        method=_hurried(config.method),
        optim=OptimConfig(
            optimizer="adamw",
            batch_size=optim.batch_size,
            accumulate=optim.accumulate,
            learning_rate=HEAD_LEARNING_RATE,
            warmup_epochs=epochs / 10,
            weight_decay=1e-4,
        ),
        epochs=epochs,
        precision="32-true",
    )


def _hurried(method: MethodConfig) -> MethodConfig:
    """Return a method of the same tensors whose waits fit into so few steps."""
    if not isinstance(method, SwAVConfig):
        return method
    momentum = method.ema_momentum
    return replace(
        method,
        freeze_steps=min(method.freeze_steps, HEAD_STEPS // 10),
        ema_momentum=None if momentum is None else min(momentum, SHORT_AVERAGE),
    )
