"""MoCo: tell a picture's key, made by a slow copy of the network, from a queue of earlier keys.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, arXiv
1911.05722 (v1: a linear head, temperature 0.07), and Chen et al., "Improved Baselines with
Momentum Contrastive Learning", 2020, arXiv 2003.04297 (v2: a hidden layer, 0.2, blur).

Every target view gives a key and every other view asks for it. One target view, that is groups of
one large crop each, is the published form; two make it symmetric.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav import distributed
from swav.config import check_ranges
from swav.data.batch import Batch
from swav.engine.objective import Clock, StepOutput, TrainingFacts
from swav.methods.projected import Projected, ProjectedConfig
from swav.nn.ema import MovingAverage
from swav.nn.heads import HeadConfig, embed_views
from swav.nn.queue import Length, Queue, auto_length
from swav.ops.losses import info_nce, swapped_pairs

LONGEST_QUEUE = 65_536


@dataclass(frozen=True, kw_only=True)
class MoCoConfig(ProjectedConfig):
    """MoCo v1 and v2 (He et al., 2020): keys of a momentum encoder, a queue of negatives."""

    name: ClassVar[str] = "moco"
    title: ClassVar[str] = "MoCo"
    has_negatives: ClassVar[bool] = True

    head: HeadConfig = HeadConfig(batchnorm=False)
    """v2 has a hidden layer; v1 is linear (``hidden_dim`` 0)."""
    temperature: float = 0.2
    momentum: float = 0.999
    """Share of the old weights in the key encoder at each step."""
    queue_length: Length = "auto"
    """Earlier keys of each target view, all ranks together; auto is 65,536, but no more than
    half the pictures."""
    batchnorm_groups: int = 1
    """Parts of a rank's batch with BatchNorm statistics of their own. Keys are shuffled over all
    parts of all ranks, so that statistics do not give away which key belongs to a query: on one
    GPU take 8, for the 8 GPUs of the paper."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} must be positive: MoCo v2 has 0.2")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum {self.momentum} must be at least 0 and below 1: try 0.99")
        if self.batchnorm_groups < 1:
            raise ValueError(f"batchnorm_groups {self.batchnorm_groups} must be at least 1")
        if self.queue_length != "auto" and self.queue_length < 1:
            raise ValueError(
                f"queue_length {self.queue_length}: MoCo has no other negatives, try 4096"
            )
        check_ranges(
            self, temperature="(0, inf)", batchnorm_groups="[1, inf)", queue_length="[1, inf)"
        )

    def resolved_queue_length(self, facts: TrainingFacts) -> int:
        """Return the length of the queue, for ``auto`` from the size of the data."""
        if self.queue_length != "auto":
            return self.queue_length
        batch = facts.global_batch
        return auto_length(
            LONGEST_QUEUE, num_images=facts.num_images, global_batch=batch, at_least=batch
        )

    def check(self, facts: TrainingFacts) -> list[str]:
        """Return a warning if the queue holds earlier keys of the pictures that ask."""
        length = self.resolved_queue_length(facts)
        if length < facts.num_images:
            return []
        return [
            f"a queue of {length} holds every one of {facts.num_images} pictures: a picture is "
            "told from its own earlier keys. Use --method.queue-length auto (half the pictures)"
        ]

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "MoCo":
        """Return the objective around ``backbone``."""
        return MoCo(self, backbone, facts)


class MoCo(Projected[MoCoConfig]):
    """Contrast with a queue of keys."""

    def __init__(self, config: MoCoConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config, backbone, facts)
        self.key_backbone = MovingAverage(self.backbone)
        self.key_projector = MovingAverage(self.projector)
        self.queue = Queue(config.resolved_queue_length(facts))
        self._keys: list[Tensor] = []  # of the micro-batches of the current step

    def forward(self, batch: Batch, clock: Clock) -> StepOutput:
        """Return the mean loss of all queries: views that ask for the key of a target view."""
        keys = self._shuffled_keys(batch.views[: batch.num_targets], clock)
        self._keys.append(keys)
        # only now is the number of target views known, and with it the shape
        if not self.queue.is_full:
            self.queue.fill(self._random_rows(keys))
        first = 1 if batch.num_targets == 1 else 0  # a lone target view asks for nothing
        queries = self._in_groups(self.backbone, self.projector, batch.views[first:])
        losses = [
            info_nce(
                queries[query - first],
                keys[target],
                self.queue.rows[target].to(keys),
                temperature=self.config.temperature,
            )
            for target, query in swapped_pairs(batch.num_targets, len(batch.views))
        ]
        return StepOutput(torch.stack(losses).mean())

    @torch.no_grad()
    def _shuffled_keys(
        self, views: Sequence[Float[Tensor, "batch channels _ _"]], clock: Clock
    ) -> Float[Tensor, "targets batch embed"]:
        """Return the keys of this rank's pictures, computed in shuffled company."""
        batch, rank = len(views[0]), distributed.rank()
        number = batch * distributed.world_size()
        # the same order on every rank, from the step alone, so that a resumed run shuffles alike
        order = torch.randperm(number, generator=torch.Generator().manual_seed(clock.step))
        own = order[rank * batch : (rank + 1) * batch].to(views[0].device)
        # BatchNorm would give away which key belongs to a query if both shared a batch (sec. 3.3)
        shuffled = [distributed.all_gather(view).flatten(0, 1)[own] for view in views]
        keys = self._in_groups(self.key_backbone.average, self.key_projector.average, shuffled)
        every = distributed.all_gather(keys).transpose(0, 1).flatten(1, 2)
        back = order.argsort()[rank * batch : (rank + 1) * batch]
        return every[:, back.to(every.device)]

    def _in_groups(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        views: Sequence[Float[Tensor, "batch channels _ _"]],
    ) -> Float[Tensor, "views batch embed"]:
        """Return unit embeddings, each group of pictures by a pass of its own."""
        chunks = [view.chunk(self.config.batchnorm_groups) for view in views]
        groups = [embed_views(backbone, projector, group) for group in zip(*chunks, strict=True)]
        return F.normalize(torch.cat(groups, dim=1), dim=2)

    def _random_rows(
        self, keys: Float[Tensor, "targets batch embed"]
    ) -> Float[Tensor, "targets queue embed"]:
        """Return what the queue starts with: random unit vectors, the same on all ranks."""
        shape = (len(keys), self.queue.length, keys.shape[2])
        # as the reference: the first steps have negatives, if meaningless ones; a generator of its
        # own leaves the draws of the training alone
        rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return F.normalize(rows, dim=2).to(keys)

    def before_step(self, _clock: Clock) -> None:
        """Start a step without keys."""
        self._keys.clear()

    def after_step(self, _clock: Clock) -> None:
        """Put the keys of this step into the queue; move the key encoder."""
        # after the step: all its micro-batches have the same negatives
        self.queue.enqueue(torch.cat(self._keys, dim=1))
        self.key_backbone.update(self.backbone, self.config.momentum)
        self.key_projector.update(self.projector, self.config.momentum)
