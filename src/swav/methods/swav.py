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
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav import distributed
from swav.data.batch import Batch
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.backbones import encode_views
from swav.nn.batchnorm import frozen_statistics
from swav.nn.ema import MovingAverage
from swav.nn.heads import HeadConfig, embed_views
from swav.nn.prototypes import Prototypes
from swav.nn.queue import Queue
from swav.ops.assign import hard_codes, power_law, sinkhorn, unbalanced_sinkhorn
from swav.ops.losses import swapped_pairs, swapped_prediction


@dataclass(frozen=True, kw_only=True)
class SwAVConfig(ObjectiveConfig):
    """SwAV (Caron et al., 2020): codes by Sinkhorn, swapped prediction."""

    name: ClassVar[str] = "swav"

    num_prototypes: tuple[int, ...] = (3000,)
    """Prototypes of each head; the loss is the mean over heads."""
    head: HeadConfig = HeadConfig()
    temperature: float = 0.1
    epsilon: float = 0.05
    """Entropy of the codes: lower is closer to a hard assignment."""
    iterations: int = 3
    """Rounds of Sinkhorn-Knopp."""
    codes: Literal["soft", "hard"] = "soft"
    hard_steps: int = 0
    """Use hard codes for the first steps, whatever ``codes`` says."""
    freeze_steps: int = 313
    """Prototypes stay as they are for the first steps."""
    queue_length: int | Literal["auto"] = 0
    """Earlier embeddings that join the assignment, all ranks together; 0 for none."""
    queue_start_epoch: int | Literal["auto"] = "auto"
    """Fill the queue from this epoch on; auto is the first one after warm-up and freeze."""
    prior_exponent: float = 0.0
    """Shares of the prototypes in the codes fall as a power law, rank to minus this; 0 is equal."""
    prior_shares: tuple[float, ...] = ()
    """Shares of the prototypes as given, one for each, in place of the power law."""
    prior_strength: float | None = None
    """Hold to the shares only this firmly (unbalanced transport, in units of the scores; try ten
    times epsilon: with epsilon itself all pictures may end in one prototype); by default the codes
    have them exactly."""
    ema_momentum: float | None = None
    """Evaluate and export a moving average of the backbone (0.99 to 0.9999)."""
    codes_from: Literal["network", "average"] = "network"
    """Whose embeddings the codes are made of: average is a momentum teacher, with ema_momentum."""

    def __post_init__(self) -> None:
        if not self.num_prototypes or min(self.num_prototypes) < 2:
            raise ValueError(f"num_prototypes {self.num_prototypes}: every head needs at least 2")
        for name, value in (
            ("temperature", self.temperature),
            ("epsilon", self.epsilon),
        ):
            if not value > 0:
                raise ValueError(f"{name} {value} must be positive: SwAV uses 0.1 and 0.05")
        if self.ema_momentum is not None and not 0 < self.ema_momentum < 1:
            raise ValueError(f"ema_momentum {self.ema_momentum} must be between 0 and 1: try 0.999")
        if self.prior_strength is not None and not self.prior_strength > 0:
            raise ValueError(
                f"prior_strength {self.prior_strength} must be positive: try {10 * self.epsilon:g}"
            )
        if self.prior_shares and min(self.prior_shares) <= 0:
            raise ValueError(f"prior_shares {self.prior_shares} must all be positive")

    def shares_of(self, number: int) -> Float[Tensor, " prototypes"] | None:
        """Return the shares of a head's prototypes, which add up to one; None for equal ones.

        Raises:
            ValueError: if they were given for another number of prototypes.
        """
        if self.prior_shares:
            if len(self.prior_shares) != number:
                raise ValueError(
                    f"prior_shares has {len(self.prior_shares)} values for a head of {number} "
                    "prototypes: give one for each, the same for all heads"
                )
            shares = torch.tensor(self.prior_shares)
            return shares / shares.sum()
        if self.prior_exponent == 0 and self.prior_strength is None:
            return None
        return power_law(number, exponent=self.prior_exponent)

    def resolved_queue_length(self, facts: TrainingFacts) -> int:
        """Return the length of the queue in rows, for ``auto`` from the size of the data.

        Raises:
            ValueError: if the length is not a multiple of the global batch.
        """
        global_batch, num_images = facts.global_batch, facts.num_images
        if self.queue_length != "auto":
            if self.queue_length < 0 or self.queue_length % global_batch:
                below = max(self.queue_length, 0) // global_batch * global_batch
                raise ValueError(
                    f"queue_length {self.queue_length} must be a multiple of the global batch "
                    f"{global_batch}: try {below} or {below + global_batch}"
                )
            return self.queue_length
        most = max(self.num_prototypes)
        if global_batch >= most:
            return 0
        wanted = -(-most // global_batch) * global_batch
        return min(wanted, num_images // 2 // global_batch * global_batch)

    def check_share(self, global_batch: int, queue_length: int) -> None:
        """Raise a ValueError if batch and queue are far too small for the prototypes."""
        rows, most = global_batch + queue_length, max(self.num_prototypes)
        if 16 * rows < most:
            raise ValueError(
                f"batch {global_batch} + queue {queue_length} share {most} prototypes, fewer than "
                f"one picture for 16: use --method.num-prototypes {16 * rows} or less, a larger "
                "batch, or --method.queue-length auto"
            )

    def check(self, facts: TrainingFacts) -> list[str]:
        """Return a warning if codes cannot reach all prototypes in a step.

        Raises:
            ValueError: if batch and queue are far too small for the prototypes.
        """
        queue, global_batch = self.resolved_queue_length(facts), facts.global_batch
        self.check_share(global_batch, queue)
        if global_batch + queue >= max(self.num_prototypes):
            return []
        return [
            f"batch {global_batch} + queue {queue} is below {max(self.num_prototypes)} prototypes, "
            "so codes cannot reach all of them in a step: use --method.num-prototypes "
            f"{global_batch + queue} or less, or --method.queue-length auto"
        ]

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "SwAV":
        """Return the objective around ``backbone``.

        Raises:
            ValueError: if batch and queue are far too small for the prototypes.
        """
        self.check_share(facts.global_batch, self.resolved_queue_length(facts))
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
        self.queue = Queue(config.resolved_queue_length(facts))
        self.average = MovingAverage(backbone) if config.ema_momentum is not None else None
        self.head_average = None if self.average is None else MovingAverage(self.projector)
        self._shares = [config.shares_of(number) for number in config.num_prototypes]
        self._last_chosen = [torch.full((number,), -1) for number in config.num_prototypes]
        self._target_embeddings: list[Tensor] = []  # of the micro-batches of the current step

    @property
    def encoder(self) -> nn.Module:
        """The backbone, or its moving average."""
        return self.backbone if self.average is None else self.average.average

    def forward(self, batch: Batch, clock: Clock) -> StepOutput:
        """Return the swapped prediction loss, the mean over heads, targets and predictions."""
        config = self.config
        embeddings = self.embed(batch.views)
        num_views, num_heads = len(batch.views), len(config.num_prototypes)
        scores = [head.chunk(num_views) for head in self.prototypes(embeddings)]
        target_embeddings = self._targets_of(batch, embeddings)
        self._target_embeddings.append(target_embeddings)
        targets = batch.targets or self._codes(target_embeddings, clock)
        losses = [
            swapped_prediction(
                scores[head][prediction],
                targets[head][target],
                temperature=config.temperature,
            )
            for head in range(num_heads)
            for target, prediction in swapped_pairs(batch.num_targets, num_views)
        ]
        return StepOutput(torch.stack(losses).mean(), self._metrics(scores, targets, clock))

    def embed(
        self, views: Sequence[Float[Tensor, "batch channels _ _"]]
    ) -> Float[Tensor, "_ embed"]:
        """Return unit embeddings of all views, view after view, by one pass of the head."""
        features = torch.cat(encode_views(self.backbone, views))
        return F.normalize(self.projector(features).float(), dim=1)

    @torch.no_grad()
    def _targets_of(
        self, batch: Batch, embeddings: Float[Tensor, "_ embed"]
    ) -> Float[Tensor, "targets batch embed"]:
        """Return what codes are made of: embeddings of the target views, by the teacher if any."""
        if self.config.codes_from != "average":
            return torch.stack(embeddings.detach().chunk(len(batch.views))[: batch.num_targets])
        assert self.average is not None
        assert self.head_average is not None
        targets = batch.views[: batch.num_targets]
        teacher, head = self.average.average, self.head_average.average
        return F.normalize(embed_views(teacher, head, targets), dim=2)

    @torch.no_grad()
    def with_targets(self, batches: Sequence[Batch], clock: Clock) -> Sequence[Batch]:
        """Return the micro-batches with codes from one assignment of the effective batch."""
        with frozen_statistics(self):
            embeddings = [self._targets_of(batch, self.embed(batch.views)) for batch in batches]
        whole = self._codes(torch.cat(embeddings, dim=1), clock)
        sizes = [rows.shape[1] for rows in embeddings]
        parts = zip(*(torch.split(codes, sizes, dim=1) for codes in whole), strict=True)
        return [
            batch._replace(targets=targets) for batch, targets in zip(batches, parts, strict=True)
        ]

    @torch.no_grad()
    def _codes(
        self, embeddings: Float[Tensor, "targets batch embed"], clock: Clock
    ) -> tuple[Float[Tensor, "targets batch _"], ...]:
        """Return the codes of each head for each target view."""
        config = self.config
        batch = embeddings.shape[1]
        by_target: list[list[Tensor]] = []
        for target, rows in enumerate(embeddings):
            if self.queue.is_full:
                rows = torch.cat([rows, self.queue.share(target).to(rows)])
            by_target.append([])
            for scores, shares in zip(self.prototypes(rows), self._shares, strict=True):
                codes = self._transported(scores, shares)
                hard = config.codes == "hard" or clock.step < config.hard_steps
                by_target[-1].append(hard_codes(codes[:batch]) if hard else codes[:batch])
        return tuple(torch.stack(views) for views in zip(*by_target, strict=True))

    def _transported(
        self, scores: Float[Tensor, "rows prototypes"], shares: Float[Tensor, " prototypes"] | None
    ) -> Float[Tensor, "rows prototypes"]:
        """Return the codes by the prior that the config chooses."""
        config = self.config
        if shares is None or config.prior_strength is None:
            return sinkhorn(
                scores, epsilon=config.epsilon, iterations=config.iterations, shares=shares
            )
        return unbalanced_sinkhorn(
            scores,
            shares,
            epsilon=config.epsilon,
            strength=config.prior_strength,
            iterations=config.iterations,
        )

    def before_step(self, _clock: Clock) -> None:
        """Put the prototypes on the unit sphere."""
        self.prototypes.normalise()
        self._target_embeddings.clear()

    def after_backward(self, clock: Clock) -> None:
        """Freeze the prototypes at first: no gradient, no decay, no momentum."""
        if clock.step < self.config.freeze_steps:
            for weight in self.prototypes.parameters():
                weight.grad = None

    def after_step(self, clock: Clock) -> None:
        """Put this step's target embeddings into the queue; move the average."""
        if self.queue.length and clock.epoch >= self._queue_start_epoch(clock):
            self.queue.enqueue(torch.cat(self._target_embeddings, dim=1))
        if self.average is not None and self.head_average is not None:
            assert self.config.ema_momentum is not None
            self.average.update(self.backbone, self.config.ema_momentum)
            self.head_average.update(self.projector, self.config.ema_momentum)

    @torch.no_grad()
    def cluster(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch prototypes"]:
        """Return the softmax over the first head's prototypes; no picture depends on another.

        The features are the encoder's, so the head is averaged if the backbone is.
        """
        head = self.projector if self.head_average is None else self.head_average.average
        return self.prototypes.probabilities(head(features), temperature=self.config.temperature)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the step at which each prototype was last chosen."""
        return {"last_chosen": self._last_chosen}

    def set_extra_state(self, state: Any) -> None:
        """Take the state of ``get_extra_state``."""
        self._last_chosen = [steps.clone() for steps in state["last_chosen"]]

    def _queue_start_epoch(self, clock: Clock) -> int:
        if self.config.queue_start_epoch != "auto":
            return self.config.queue_start_epoch
        settled = max(clock.warmup_steps, self.config.freeze_steps)
        return -(-settled // clock.steps_per_epoch)

    @torch.no_grad()
    def _metrics(
        self,
        scores: Sequence[Sequence[Tensor]],
        targets: tuple[Float[Tensor, "targets batch _"], ...],
        clock: Clock,
    ) -> dict[str, Tensor]:
        """Return what tells learning from collapse; heads are averaged."""
        floor = torch.stack([torch.special.entr(codes).sum(2).mean() for codes in targets]).cpu()
        ln_k = torch.tensor([float(number) for number in self.config.num_prototypes]).log()
        used = []
        for head, views in enumerate(scores):
            chosen = torch.cat(list(views[: len(targets[head])])).argmax(dim=1).cpu()
            last_chosen = self._last_chosen[head].scatter(0, chosen, clock.step)
            self._last_chosen[head] = distributed.all_reduce_max(last_chosen)
            recent = max(clock.step - clock.steps_per_epoch, -1)  # -1 is never
            used.append((self._last_chosen[head] > recent).float().mean())
        return {
            "code_entropy": (floor / ln_k).mean(),
            "prototypes_used": torch.stack(used).mean(),
            "loss_floor": floor.mean(),
            "ln_k": ln_k.mean(),
        }
