"""What a method is to the engine: a loss over batches, and hooks in the order of a step."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from swav.data.batch import AnyBatch, Batch
from swav.data.views.pretext_tasks import Pretext
from swav.nn.prototypes import ClusterHead


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
        # from the step alone: a clock needs no state of its own in a checkpoint
        epoch = step // self.steps_per_epoch
        return replace(self, step=step, epoch=epoch, images=step * global_batch)


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What a method has to know of the training that it is built for."""

    feature_dim: int
    """Size of the backbone's output."""
    num_images: int
    """Pictures of the data."""
    global_batch: int
    """Pictures of one optimiser step: all ranks, all micro-batches."""


class StepOutput(NamedTuple):
    """The loss of one forward pass, and named numbers worth writing down."""

    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = MappingProxyType({})


class ObjectiveConfig(ABC):
    """The settings of a method. Subclasses are final: frozen dataclasses with a ``name``."""

    name: ClassVar[str]
    title: ClassVar[str]
    """The name in a sentence, such as Barlow Twins."""
    has_negatives: ClassVar[bool] = False
    """Whether every other picture counts as different, one that shows the same thing too."""
    has_clusters: ClassVar[bool] = False
    """Whether ``Objective.cluster`` has an answer."""
    learns_from_features: ClassVar[bool] = False
    """Whether its head learns from a ``FeatureBatch`` too, without the pictures."""
    collapse_remedies: ClassVar[tuple[str, ...]] = ()
    """Options of its own to change when its codes collapse, the likeliest first."""
    needs_whole_batch: ClassVar[str] = ""
    """Why the loss cannot be added up over micro-batches; empty where it can."""
    min_views: ClassVar[int] = 2
    """Views of a picture that the loss compares; one where memory is all it needs."""

    @property
    def pretext(self) -> Pretext | None:
        """What a pretext task makes of the views of a batch; None to take them as they are."""
        return None

    @abstractmethod
    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "Objective":
        """Return the objective around ``backbone``."""

    def check(self, _facts: TrainingFacts, /) -> list[str]:
        """Return what will hurt a training with these facts, a sentence each.

        Raises:
            ValueError: for what makes it pointless.
        """
        return []


class Objective(nn.Module, ABC):
    """A loss over batches, with the modules and the state it needs. Subclasses are final.

    The hooks run in this order: ``prepare`` once; ``before_epoch``; then for each optimiser step
    ``before_step``, ``with_targets`` (only when a step has several micro-batches), ``forward``
    and backward for each micro-batch, ``after_backward``, the optimiser, ``after_step``.
    Arguments are positional: a hook that has no use for one calls it ``_clock``.
    """

    def __init__(self, config: ObjectiveConfig | None = None) -> None:
        """Keep what the engine reads of the settings; an objective that is no method has none."""
        super().__init__()
        self.needs_whole_batch = "" if config is None else config.needs_whole_batch

    @property
    def lr_multipliers(self) -> Mapping[str, float]:
        """Learning rates of parts by their names, in multiples of the schedule's (BYOL)."""
        return MappingProxyType({})

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """The backbone that is evaluated, embedded and exported (its EMA when EMA is on)."""

    @abstractmethod
    def forward(self, batch: Batch, clock: Clock, /) -> StepOutput:
        """Return the loss of one micro-batch, for ``batch.targets`` if it has them."""

    def with_targets(self, batches: Sequence[AnyBatch], _clock: Clock, /) -> Sequence[AnyBatch]:
        """Return the micro-batches of a step with targets made over all of them (SwAV)."""
        return batches

    @property
    def cluster_head(self) -> ClusterHead | None:
        """What gives the method's clusters, None if it has none (SwAV)."""
        return None

    def cluster(
        self, features: Float[Tensor, "batch features"], /
    ) -> Float[Tensor, "batch prototypes"] | None:
        """Return the probability of each of the method's clusters, or None if it has none."""
        head = self.cluster_head
        return None if head is None else head.probabilities(features)

    def prepare(self, batches: Iterable[AnyBatch], /) -> None:
        """Fill memory banks before the first step.

        ``batches`` are the target views of one epoch, made only if someone asks for them.
        """

    def before_epoch(self, clock: Clock, /) -> None:
        """Assign the whole bank (DeepCluster-v2, SeLa-v2)."""

    def before_step(self, clock: Clock, /) -> None:
        """Renormalise the prototypes (SwAV)."""

    def after_backward(self, clock: Clock, /) -> None:
        """Drop the gradients of frozen parameters (SwAV)."""

    def after_step(self, clock: Clock, /) -> None:
        """Move teachers, queues and memories."""
