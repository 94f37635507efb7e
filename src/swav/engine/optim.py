"""Optimisers of the published recipes, and the learning rate of each step."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from timm.optim.lars import Lars
from torch import nn

from swav.engine.objective import Clock


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, batch and learning-rate schedule."""

    optimizer: Literal["lars", "sgd", "adamw"] = "lars"
    batch_size: int = 256
    """Pictures of one optimiser step: all ranks, all micro-batches."""
    accumulate: int = 1
    """Micro-batches of one step; codes are computed over all of them."""
    learning_rate: float = 0.6
    """Height of the schedule, for the whole batch."""
    start_learning_rate: float = 0.0
    """Where the warm-up starts."""
    final_learning_rate: float = 0.0
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up; a cosine follows."""
    weight_decay: float = 1e-6
    """Of all parameters for lars and sgd, as in the reference; of matrices alone for adamw."""
    momentum: float = 0.9
    """Of lars and sgd."""
    clip_norm: float | None = None
    """Scale gradients down to this global norm."""

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} must be at least 2 and a multiple of "
                f"accumulate {self.accumulate}"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be positive")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of all trainable parameters of ``module``."""
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        if self.optimizer == "lars":
            # equal to apex's LARC as SwAV uses it: every tensor adapted and decayed, no exclusions
            # (but where a gradient is exactly zero: apex leaves the decay out, timm does not)
            return Lars(
                weights,
                lr=self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                trust_coeff=1e-3,
                always_adapt=True,
            )
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                weights,
                lr=self.learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
            )
        matrices = [weight for weight in weights if weight.ndim > 1]
        vectors = [weight for weight in weights if weight.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate, fused=True)

    def learning_rate_at(self, clock: Clock) -> float:
        """Return the rate of the step that starts at ``clock`` (the reference's schedule).

        Warm-up is linear with both ends included; the cosine starts at its height, which thus
        appears twice, and approaches the final rate without reaching it.
        """
        step, warmup = clock.step, clock.warmup_steps
        height, start, final = (
            self.learning_rate,
            self.start_learning_rate,
            self.final_learning_rate,
        )
        if step < warmup:
            return start + (height - start) * step / max(warmup - 1, 1)
        done = (step - warmup) / max(clock.total_steps - warmup, 1)
        return final + 0.5 * (height - final) * (1 + math.cos(math.pi * done))
