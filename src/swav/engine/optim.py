"""Optimisers of the published recipes, and the learning rate of each step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from timm.optim.lars import Lars
from torch import nn

from swav.config import check_ranges
from swav.engine.objective import Clock


@dataclass(frozen=True, kw_only=True)
class LateLayers:
    """Parameters with learning rates of their own, which learn only from some step on."""

    rates: Mapping[str, float] = field(default_factory=dict)
    """By their names, in multiples of the schedule's."""
    from_step: int = 0


EVERY_LAYER = LateLayers()


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
    """Of matrices, and of vectors as ``decay_vectors`` says."""
    decay_vectors: bool = True
    """Decay biases and normalisation layers too, as the reference does; adamw never does."""
    momentum: float = 0.9
    """Of lars and sgd."""
    # of BEiT's and MAE's fine-tuning, which have 0.65 to 0.75, and timm's default
    layer_decay: float = 0.75
    """Learning rate of each layer of the backbone, in multiples of the next one's, the last having
    as much of the head's; 1 is one rate for all. Only with a start other than random."""
    clip_norm: float | None = None
    """Scale gradients down to this global norm."""

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} must be at least 2 and a multiple of "
                f"accumulate {self.accumulate}: give --optim.batch-size 2 or more, and "
                "--optim.accumulate 1 or a divisor of it"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be positive")
        check_ranges(
            self,
            batch_size="[2, inf)",
            accumulate="[1, inf)",
            learning_rate="(0, inf)",
            start_learning_rate="[0, inf)",
            final_learning_rate="[0, inf)",
            warmup_epochs="[0, inf)",
            weight_decay="[0, inf)",
            momentum="[0, 1)",
            layer_decay="(0, 1]",
            clip_norm="(0, inf)",
        )

    def build(
        self,
        module: nn.Module,
        lr_multipliers: Mapping[str, float] = MappingProxyType({}),
        late: LateLayers = EVERY_LAYER,
    ) -> torch.optim.Optimizer:
        """Return the optimiser of all trainable parameters of ``module``.

        Args:
            module: what is trained.
            lr_multipliers: learning rates of parts of it by their names, in multiples of the
                schedule's, which the groups of the optimiser have as ``rate``.
            late: further multiples by the names of parameters, and the step from which on these
                learn, which their groups have as ``from_step``.
        """
        groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                own = (
                    lr_multipliers[part] for part in lr_multipliers if name.startswith(f"{part}.")
                )
                rate = next(own, 1.0) * late.rates.get(name, 1.0)
                from_step = late.from_step if name in late.rates else 0
                # the reference decays vectors too: it is apex's LARC without exclusions
                decays = weight.ndim > 1 or (self.decay_vectors and self.optimizer != "adamw")
                decay = self.weight_decay if decays else 0.0
                groups.setdefault((rate, decay, from_step), []).append(weight)
        parts = [
            {
                "params": weights,
                "lr": self.learning_rate * rate,
                "rate": rate,
                "from_step": from_step,
                "weight_decay": decay,
            }
            for (rate, decay, from_step), weights in groups.items()
        ]
        if self.optimizer == "lars":
            # equal to apex's LARC as SwAV uses it: every tensor adapted and decayed, no exclusions
            # (but where a gradient is exactly zero: apex leaves the decay out, timm does not)
            return Lars(parts, momentum=self.momentum, trust_coeff=1e-3, always_adapt=True)
        if self.optimizer == "sgd":
            return torch.optim.SGD(parts, momentum=self.momentum)
        # fused: one kernel over all tensors
        return torch.optim.AdamW(parts, fused=True)

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
            # warmup - 1: both ends are included, as linspace in the reference
            return start + (height - start) * step / max(warmup - 1, 1)
        done = (step - warmup) / max(clock.total_steps - warmup, 1)
        return final + 0.5 * (height - final) * (1 + math.cos(math.pi * done))
