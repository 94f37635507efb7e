"""SwAV: cluster online, and predict the cluster of one view from another.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
NeurIPS 2020, arXiv 2006.09882. Every view of a picture is embedded on the unit sphere and scored
against K trainable prototypes. The scores of the target views become codes by an optimal
transport that shares the batch equally between prototypes; each other view has to predict them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swav.config import check_ranges
from swav.data.batch import AnyBatch
from swav.engine.divergence import FEWER_PROTOTYPES, SHARPER_CODES
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.batchnorm import frozen_statistics
from swav.nn.ema import MovingAverage
from swav.nn.heads import HeadConfig, unit_embeddings
from swav.nn.prototypes import ClusterHead, Prototypes, PrototypeUsage
from swav.nn.queue import Length, Queue, check_reach, length_to_reach
from swav.ops.assign import Prior, hard_codes
from swav.ops.losses import swapped_pairs, swapped_prediction


@dataclass(frozen=True, kw_only=True)
class SwAVConfig(ObjectiveConfig):
    """SwAV (Caron et al., 2020): codes by Sinkhorn, swapped prediction."""

    name: ClassVar[str] = "swav"
    title: ClassVar[str] = "SwAV"
    has_clusters: ClassVar[bool] = True
    learns_from_features: ClassVar[bool] = True
    collapse_remedies: ClassVar[tuple[str, ...]] = (SHARPER_CODES, FEWER_PROTOTYPES)

    num_prototypes: tuple[int, ...] = (3000,)
    """Prototypes of each head; the loss is the mean over heads."""
    head: HeadConfig = HeadConfig()
    temperature: float = 0.1
    epsilon: float = 0.05
    """Entropy of the codes: lower is closer to a hard assignment."""
    # fewer did not converge, more were slightly worse (SwAV)
    iterations: int = 3
    """Rounds of Sinkhorn-Knopp."""
    codes: Literal["soft", "hard"] = "soft"
    hard_steps: int = 0
    """Use hard codes for the first steps, whatever ``codes`` says."""
    # one epoch and one step of the published scripts: 312 steps of 4,096
    freeze_steps: int = 313
    """Prototypes stay as they are for the first steps."""
    queue_length: Length = 0
    """Earlier embeddings that join the assignment, all ranks together; 0 for none."""
    queue_start_epoch: int | Literal["auto"] = "auto"
    """Fill the queue from this epoch on; auto is the first one after warm-up and freeze."""
    prior: Prior = Prior()
    ema_momentum: float | None = None
    """Evaluate and export a moving average of the backbone (0.99 to 0.9999)."""
    codes_from: Literal["network", "average"] = "network"
    """Whose embeddings the codes are made of: average is a momentum teacher, with ema_momentum."""

    def __post_init__(self) -> None:
        if not self.num_prototypes or min(self.num_prototypes) < 2:
            raise ValueError(f"num_prototypes {self.num_prototypes}: every head needs at least 2")
        for name, value in (("temperature", self.temperature), ("epsilon", self.epsilon)):
            if not value > 0:
                raise ValueError(f"{name} {value} must be positive: SwAV uses 0.1 and 0.05")
        if self.ema_momentum is not None and not 0 < self.ema_momentum < 1:
            raise ValueError(f"ema_momentum {self.ema_momentum} must be between 0 and 1: try 0.999")
        check_ranges(
            self,
            num_prototypes="[2, 1e7]",
            temperature="(0, inf)",
            epsilon="(0, inf)",
            iterations="[0, 1000]",
            hard_steps="[0, inf)",
            freeze_steps="[0, inf)",
            queue_length="[0, inf)",
            queue_start_epoch="[0, inf)",
        )

    def resolved_queue_length(self, facts: TrainingFacts) -> int:
        """Return the rows of the queue, for ``auto`` from the size of the data."""
        return length_to_reach(
            max(self.num_prototypes),
            self.queue_length,
            num_images=facts.num_images,
            global_batch=facts.global_batch,
        )

    def first_queue_epoch(self, clock: Clock) -> int:
        """Return the epoch from which on the queue is filled."""
        if self.queue_start_epoch != "auto":
            return self.queue_start_epoch
        # earlier embeddings are of a network that still changes fast; the scripts with a batch of
        # 256 wait for 15 epochs
        return -(-max(clock.warmup_steps, self.freeze_steps) // clock.steps_per_epoch)

    def check(self, facts: TrainingFacts) -> list[str]:
        """Return a warning if codes cannot reach all prototypes in a step."""
        return check_reach(
            max(self.num_prototypes),
            global_batch=facts.global_batch,
            queue_length=self.resolved_queue_length(facts),
        )

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "SwAV":
        """Return the objective around ``backbone``.

        Raises:
            ValueError: if batch and queue are far too small for the prototypes.
        """
        self.check(facts)
        self.prior.check(self.num_prototypes)
        if self.codes_from == "average" and self.ema_momentum is None:
            raise ValueError("codes_from average needs an average: give --method.ema-momentum 0.99")
        return SwAV(self, backbone, facts)


class SwAV(Objective):
    """Swapped prediction of online cluster assignments."""

    def __init__(self, config: SwAVConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = backbone
        self.projector = config.head.build(facts.feature_dim)
        self.prototypes = Prototypes(config.head.embed_dim, config.num_prototypes)
        self.usage = PrototypeUsage(config.num_prototypes)
        self.queue = Queue(config.resolved_queue_length(facts))
        has_average = config.ema_momentum is not None
        self.average = MovingAverage(backbone) if has_average else None
        self.head_average = MovingAverage(self.projector) if has_average else None
        self._queued: list[Tensor] = []  # embeddings of the micro-batches of the current step

    @property
    def encoder(self) -> nn.Module:
        """The backbone, or its moving average."""
        return self.backbone if self.average is None else self.average.average

    def forward(self, batch: AnyBatch, clock: Clock) -> StepOutput:
        """Return the swapped prediction loss, the mean over heads, targets and predictions."""
        num_views = len(batch.views)
        # one pass of the head over all views: its BatchNorm sees all crops together, as in the
        # reference
        embeddings = self.embed(batch)
        scores = [head.chunk(num_views) for head in self.prototypes(embeddings.flatten(0, 1))]
        coded = self._coded_embeddings(batch, embeddings)
        # enqueued only after the step: micro-batches of a step have to see the same queue
        self._queued.append(coded)
        # an accumulated step brings its codes, made over all of it: equal shares of a part of the
        # batch would be other codes
        codes = batch.targets or self.codes(coded, clock)
        losses = [
            swapped_prediction(
                scores[head][prediction], codes[head][target], temperature=self.config.temperature
            )
            for head in range(len(codes))
            for target, prediction in swapped_pairs(batch.num_targets, num_views)
        ]
        # codes say nothing of use while they are near uniform; the nearest prototype does
        target_scores = [torch.cat(views[: batch.num_targets]) for views in scores]
        self.usage.record(target_scores, clock.step)
        metrics = self.usage.metrics(codes, since=clock.step - clock.steps_per_epoch)
        # a mean over targets and predictions, as the code has it; eq. 1 of the paper is a sum
        return StepOutput(torch.stack(losses).mean(), metrics)

    def embed(self, batch: AnyBatch) -> Float[Tensor, "views batch embed"]:
        """Return unit embeddings of all views."""
        return unit_embeddings(self.projector, batch.encode(self.backbone))

    @torch.no_grad()
    def _coded_embeddings(
        self, batch: AnyBatch, embeddings: Float[Tensor, "views batch embed"]
    ) -> Float[Tensor, "targets batch embed"]:
        """Return what codes are made of: embeddings of the target views, by the teacher if any."""
        if self.config.codes_from == "network":
            # codes are targets: with a gradient the network could move them to where views agree
            return embeddings[: batch.num_targets].detach()
        assert self.average is not None
        assert self.head_average is not None
        targets = batch._replace(views=batch.views[: batch.num_targets])
        return unit_embeddings(self.head_average.average, targets.encode(self.average.average))

    @torch.no_grad()
    def codes(
        self, embeddings: Float[Tensor, "targets batch embed"], clock: Clock
    ) -> tuple[Float[Tensor, "targets batch _"], ...]:
        """Return the codes of each head for each target view, assigned together with the queue."""
        config = self.config
        is_hard = config.codes == "hard" or clock.step < config.hard_steps
        by_target: list[list[Tensor]] = []
        for target, rows in enumerate(embeddings):
            codes = [
                config.prior.codes(scores, epsilon=config.epsilon, iterations=config.iterations)
                # old embeddings meet the prototypes of now, so that all rows are scored alike
                for scores in self.prototypes(self.queue.joined_to(rows, target))
            ]
            # only the rows of this batch are predicted; the queue is there to fill the prototypes
            by_target.append([(hard_codes(c) if is_hard else c)[: len(rows)] for c in codes])
        return tuple(torch.stack(views) for views in zip(*by_target, strict=True))

    @torch.no_grad()
    def with_targets(self, batches: Sequence[AnyBatch], clock: Clock) -> Sequence[AnyBatch]:
        """Return the micro-batches with codes from one assignment of the effective batch."""
        # this pass is for the codes alone: forward makes it again and updates BatchNorm then
        with frozen_statistics(self):
            coded = [self._coded_embeddings(batch, self.embed(batch)) for batch in batches]
        whole = self.codes(torch.cat(coded, dim=1), clock)
        sizes = [rows.shape[1] for rows in coded]
        per_batch = zip(*(torch.split(codes, sizes, dim=1) for codes in whole), strict=True)
        return [
            batch._replace(targets=targets)
            for batch, targets in zip(batches, per_batch, strict=True)
        ]

    def before_step(self, _clock: Clock) -> None:
        """Put the prototypes on the unit sphere."""
        # before the forward, as the reference does; the paper (sec. 3.1) does it after the update
        self.prototypes.normalise()
        self._queued.clear()

    def after_backward(self, clock: Clock) -> None:
        """Freeze the prototypes at first: no gradient, no decay, no momentum."""
        if clock.step < self.config.freeze_steps:
            for weight in self.prototypes.parameters():
                # not zero: the optimiser would still add weight decay and momentum
                weight.grad = None

    def after_step(self, clock: Clock) -> None:
        """Put this step's target embeddings into the queue; move the average."""
        if self.queue.length and clock.epoch >= self.config.first_queue_epoch(clock):
            self.queue.enqueue(torch.cat(self._queued, dim=1))
        momentum = self.config.ema_momentum
        for average, module in ((self.average, self.backbone), (self.head_average, self.projector)):
            if average is not None and momentum is not None:
                average.update(module, momentum)

    @property
    def cluster_head(self) -> ClusterHead:
        """The first head's prototypes, by the averaged projector if there is one."""
        projector = self.projector if self.head_average is None else self.head_average.average
        return ClusterHead(projector, self.prototypes, self.config.temperature)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the step at which each prototype was last chosen."""
        return {"last_chosen": self.usage.last_chosen}

    def set_extra_state(self, state: Any) -> None:
        """Take the state of ``get_extra_state``."""
        self.usage.last_chosen = [steps.clone() for steps in state["last_chosen"]]
