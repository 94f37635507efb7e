"""Instance discrimination (NPID): tell every picture of the data from every other.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
arXiv 1805.01978. A memory bank holds one embedding of each picture; a view has to find the row of
its own picture among all rows, which noise-contrastive estimation reduces to a few drawn ones.

The rows are drawn once for each step and shared by all its pictures and ranks (the paper draws
some for each picture): the estimate of each picture's loss is the same on average, at a fraction
of the memory. With several views each one looks for its row, and the mean of the target views
goes into the bank.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swav import distributed
from swav.config import check_ranges
from swav.data.batch import AnyBatch, Batch
from swav.engine.objective import Clock, StepOutput, TrainingFacts
from swav.methods.projected import Projected, ProjectedConfig
from swav.nn.heads import HeadConfig
from swav.nn.memory import MemoryBank
from swav.ops.losses import noise_contrast


@dataclass(frozen=True, kw_only=True)
class InstDiscConfig(ProjectedConfig):
    """Instance discrimination (Wu et al., 2018): find a picture's row in a memory bank."""

    name: ClassVar[str] = "instdisc"
    title: ClassVar[str] = "instance discrimination"
    min_views: ClassVar[int] = 1
    has_negatives: ClassVar[bool] = True

    head: HeadConfig = HeadConfig(hidden_dim=0)
    """Linear, as in the paper."""
    temperature: float = 0.07
    num_negatives: int = 4096
    """Rows of the bank that a picture's own is told from, drawn anew at each step."""
    bank_momentum: float = 0.5
    """Share of the old row in the new one."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} must be positive: NPID has 0.07")
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives {self.num_negatives} must be at least 1: try 4096")
        if not 0 <= self.bank_momentum < 1:
            raise ValueError(f"bank_momentum {self.bank_momentum} must be in [0, 1): NPID has 0.5")
        check_ranges(self, temperature="(0, inf)", num_negatives="[1, inf)")

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "InstDisc":
        """Return the objective around ``backbone``."""
        return InstDisc(self, backbone, facts)


class InstDisc(Projected[InstDiscConfig]):
    """Every picture a class of its own."""

    def __init__(self, config: InstDiscConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config, backbone, facts)
        self.bank = MemoryBank(
            facts.num_images, config.head.embed_dim, momentum=config.bank_momentum
        )
        self._log_normaliser = torch.tensor(torch.nan)
        self._waiting: list[tuple[Tensor, Tensor]] = []  # of the micro-batches of this step

    @torch.no_grad()
    def prepare(self, batches: Iterable[AnyBatch]) -> None:
        """Estimate Z, then replace the random rows by embeddings: epoch 0 learns no noise.

        Z is that of the random rows, as in the paper (sec. 3.2), and kept. The embeddings of an
        untrained network crowd together: their Z is so large that no view could find its row.
        """
        number, temperature = self.config.num_negatives, self.config.temperature
        # float64: a sum of exp(cosine / 0.07) over millions of pairs
        random_rows = self.bank.rows_of(self.bank.draw(number, step=0))[0].double()
        log_sums, count = [], 0
        for batch in batches:
            embeddings = self.embed(batch)
            scores = embeddings.flatten(0, 1).double() @ random_rows.to(embeddings.device).T
            # in logarithms, batch by batch: all scores of an epoch would not fit into memory
            log_sums.append((scores / temperature).flatten().logsumexp(dim=0))
            count += scores.numel()
            self.bank.update(batch.indices, self._mean_of_targets(embeddings, batch))
        log_sum = distributed.all_gather(torch.stack(log_sums)).flatten().logsumexp(dim=0)
        log_mean = log_sum - math.log(distributed.world_size() * count)
        self._log_normaliser = (log_mean + math.log(self.bank.num_images)).float()

    def forward(self, batch: Batch, clock: Clock) -> StepOutput:
        """Return the noise-contrastive loss, the mean over all views."""
        if self._log_normaliser.isnan():
            raise ValueError("Z is not known yet: call prepare(batches) before step 0")
        embeddings = self.embed(batch)
        self._waiting.append((batch.indices, self._mean_of_targets(embeddings, batch)))
        # not in the graph: the bank is data, and gets the embedding after the step (sec. 3.1)
        own = self.bank.own_rows_of(batch.indices)[0].to(embeddings)
        chosen = self.bank.draw(self.config.num_negatives, step=clock.step)
        drawn = self.bank.rows_of(chosen)[0].to(embeddings)
        losses = [
            noise_contrast(
                view,
                own,
                drawn,
                temperature=self.config.temperature,
                log_normaliser=self._log_normaliser.to(view),
                num_images=self.bank.num_images,
            )
            for view in embeddings
        ]
        return StepOutput(torch.stack(losses).mean())

    def _mean_of_targets(
        self, embeddings: Float[Tensor, "views batch embed"], batch: AnyBatch
    ) -> Float[Tensor, "1 batch embed"]:
        return embeddings.detach()[: batch.num_targets].mean(dim=0, keepdim=True)

    def before_step(self, _clock: Clock) -> None:
        """Start a step with nothing to put into the bank."""
        self._waiting.clear()

    def after_step(self, _clock: Clock) -> None:
        """Put the embeddings of this step into the bank."""
        indices, embeddings = zip(*self._waiting, strict=True)
        self.bank.update(torch.cat(indices), torch.cat(embeddings, dim=1))

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return log Z."""
        return {"log_normaliser": self._log_normaliser}

    def set_extra_state(self, state: Any) -> None:
        """Take the state of ``get_extra_state``."""
        self._log_normaliser = state["log_normaliser"].clone()
