"""Queue: embeddings of earlier batches that help a small batch to reach all prototypes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swav import distributed


class Queue(nn.Module):
    """The newest ``length`` embeddings of every target view, all ranks together.

    Each rank holds the whole queue, equal on all of them, so that it is saved once and any
    number of ranks can go on with it. It is state but no buffer: DDP leaves it alone.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self._rows = torch.empty(0, 0, 0)

    @property
    def is_full(self) -> bool:
        """Whether ``length`` rows have come in; a queue is of no use before."""
        return self._rows.shape[1] == self.length > 0

    @property
    def rows(self) -> Float[Tensor, "targets queue embed"]:
        """All rows, the newest first."""
        return self._rows

    def fill(self, rows: Float[Tensor, "targets queue embed"]) -> None:
        """Take these rows, the same on all ranks, in place of what there is."""
        self._rows = rows

    def share(self, target: int) -> Float[Tensor, "queue embed"]:
        """Return this rank's share of the rows of one target view; the shares cover the queue."""
        return self._rows[target, distributed.rank() :: distributed.world_size()]

    @torch.no_grad()
    def enqueue(self, embeddings: Float[Tensor, "targets batch embed"]) -> None:
        """Put the embeddings of all ranks at the front; the oldest rows fall out at the end."""
        rows = distributed.all_gather(embeddings.float()).transpose(0, 1).flatten(1, 2)
        if self._rows.numel():
            rows = torch.cat([rows, self._rows.to(rows)], dim=1)
        self._rows = rows[:, : self.length]

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the rows so far."""
        return {"rows": self._rows}

    def set_extra_state(self, state: Any) -> None:
        """Take rows from ``get_extra_state``.

        Raises:
            ValueError: if there are more than ``length``.
        """
        rows = state["rows"]
        if rows.shape[1] > self.length:
            raise ValueError(
                f"the saved queue has {rows.shape[1]} rows, this run's length is {self.length}: "
                "continue with the queue_length of the run that saved it"
            )
        self._rows = rows.clone()
