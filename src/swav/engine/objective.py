"""What a method is to the engine: a loss over batches, and hooks in the order of a step."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from swav.data.batch import Batch
from swav.data.views.pretext_tasks import Pretext

Targets = tuple[Tensor, ...]
"""What a method wants a micro-batch to predict, one tensor per target view and head."""


@dataclass(frozen=True)
class Clock:
    """The position of a run in time. A method sees time only through it."""

    step: int
    """Optimiser steps done."""
    epoch: int
    """Passes over the data done, rounded down."""
    steps_per_epoch: int
    total_steps: int
    images: int
    """Pictures seen, all ranks together."""
    warmup_steps: int = 0
    """Steps until the learning rate has reached its height."""

    def at(self, step: int, *, global_batch: int) -> "Clock":
        """Return the clock of the same run after ``step`` optimiser steps."""
        epoch = step // self.steps_per_epoch
        return replace(self, step=step, epoch=epoch, images=step * global_batch)


class StepOutput(NamedTuple):
    """The loss of one forward pass, and named numbers worth writing down."""

    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = MappingProxyType({})


class ObjectiveConfig(ABC):
    """The settings of a method. Subclasses are final: frozen dataclasses with a ``name``."""

    name: ClassVar[str]
    needs_whole_batch: ClassVar[str] = ""
    """Why the loss cannot be added up over micro-batches; empty where it can."""

    @property
    def pretext(self) -> Pretext | None:
        """What a pretext task makes of the views of a batch; None to take them as they are."""
        return None

    @abstractmethod
    def build(
        self, backbone: nn.Module, *, feature_dim: int, num_images: int, global_batch: int
    ) -> "Objective":
        """Return the objective around ``backbone``."""

    def check(self, *, num_images: int, global_batch: int) -> list[str]:
        """Return what will hurt a training on so many pictures, a sentence each.

        Raises:
            ValueError: for what makes it pointless.
        """
        del num_images, global_batch
        return []


class Objective(nn.Module, ABC):
    """A loss over batches, with the modules and the state it needs. Subclasses are final.

    The hooks run in this order: ``prepare`` once; ``before_epoch``; then for each optimiser step
    ``before_step``, ``codes`` (only when a step has several micro-batches), ``forward`` and
    backward for each micro-batch, ``after_backward``, the optimiser, ``after_step``.
    """

    needs_whole_batch: ClassVar[str] = ""
    """As in its config."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Learning rates of parts by their names, in multiples of the schedule's (BYOL)."""
        return MappingProxyType({})

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """The backbone that is evaluated, embedded and exported (its EMA when EMA is on)."""

    @abstractmethod
    def forward(self, batch: Batch, clock: Clock, targets: Targets | None = None) -> StepOutput:
        """Return the loss of one micro-batch; ``targets`` are given when ``codes`` made them."""

    def codes(self, batches: Sequence[Batch], clock: Clock) -> Sequence[Targets] | None:
        """Return the targets of every micro-batch, computed over the whole effective batch."""
        del batches, clock
        return None

    def cluster(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch prototypes"] | None:
        """Return the probability of each of the method's clusters, or None if it has none."""
        del features
        return None

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fill memory banks before the first step.

        ``batches`` are the target views of one epoch, made only if someone asks for them.
        """

    def before_epoch(self, clock: Clock) -> None:
        """Assign the whole bank (DeepCluster-v2, SeLa-v2)."""

    def before_step(self, clock: Clock) -> None:
        """Renormalise the prototypes (SwAV)."""

    def after_backward(self, clock: Clock) -> None:
        """Drop the gradients of frozen parameters (SwAV)."""

    def after_step(self, clock: Clock) -> None:
        """Move teachers, queues and memories."""
