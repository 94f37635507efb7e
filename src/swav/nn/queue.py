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

    def __init__(self, *, num_targets: int, length: int, embed_dim: int) -> None:
        super().__init__()
        self._rows = torch.zeros(num_targets, length, embed_dim)
        self._num_filled = 0

    @property
    def is_full(self) -> bool:
        """Whether every row has been written; a queue is of no use before."""
        return self._num_filled >= self._rows.shape[1] > 0

    def share(self, target: int) -> Float[Tensor, "queue embed"]:
        """Return this rank's share of the rows of one target view; the shares cover the queue."""
        return self._rows[target, distributed.rank() :: distributed.world_size()]

    @torch.no_grad()
    def enqueue(self, embeddings: Float[Tensor, "targets batch embed"]) -> None:
        """Put the embeddings of all ranks at the front; the oldest rows fall out at the end."""
        every_rank = distributed.all_gather(embeddings.float())
        newest = every_rank.transpose(0, 1).flatten(1, 2)
        self._rows = torch.cat([newest, self._rows.to(newest)], dim=1)[:, : self._rows.shape[1]]
        self._num_filled = min(self._num_filled + newest.shape[1], self._rows.shape[1])

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the rows and how many of them are filled."""
        return {"rows": self._rows, "num_filled": torch.tensor(self._num_filled)}

    def set_extra_state(self, state: Any) -> None:
        """Take rows and fill count from ``get_extra_state``.

        Raises:
            ValueError: if the saved queue has another shape.
        """
        if state["rows"].shape != self._rows.shape:
            raise ValueError(
                f"the saved queue has shape {tuple(state['rows'].shape)}, this run's "
                f"{tuple(self._rows.shape)}: keep queue_length, embed_dim and the target views"
            )
        self._rows = state["rows"].clone()
        self._num_filled = int(state["num_filled"])
