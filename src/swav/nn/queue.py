"""Queue: embeddings of earlier batches that help a small batch to reach all prototypes."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swav import distributed
from swav.config import UsageError

Length = int | Literal["auto"]
"""Rows of a queue, all ranks together; auto takes them from the size of the data."""


def auto_length(wanted: int, *, num_images: int, global_batch: int, at_least: int = 0) -> int:
    """Return ``wanted`` rows in whole batches, at most half of the pictures.

    A longer one would hold earlier embeddings of the pictures that are compared with it.
    """
    return min(wanted, max(num_images // 2, at_least)) // global_batch * global_batch


def length_to_reach(
    num_prototypes: int, length: Length, *, num_images: int, global_batch: int
) -> int:
    """Return ``length``; auto is a row for each prototype, where a batch does not reach them all.

    Raises:
        ValueError: for a queue that whole batches do not fill.
    """
    if length == "auto":
        if global_batch >= num_prototypes:
            return 0
        # whole batches only: cutting one would lose the rows of the last ranks
        wanted = -(-num_prototypes // global_batch) * global_batch
        return auto_length(wanted, num_images=num_images, global_batch=global_batch)
    if length < 0 or length % global_batch:
        below = max(length, 0) // global_batch * global_batch
        raise UsageError(
            f"queue_length {length} must be a multiple of the global batch {global_batch}: "
            f"try {below} or {below + global_batch}"
        )
    return length


def check_reach(num_prototypes: int, *, global_batch: int, queue_length: int) -> list[str]:
    """Return a warning if batch and queue cannot reach so many prototypes in a step.

    Raises:
        ValueError: if they are far too small for them.
    """
    rows = global_batch + queue_length
    if 16 * rows < num_prototypes:
        raise UsageError(
            f"batch {global_batch} + queue {queue_length} share {num_prototypes} prototypes, fewer "
            f"than one picture for 16: use --method.num-prototypes {16 * rows} or less, a larger "
            "batch, or --method.queue-length auto"
        )
    if rows >= num_prototypes:
        return []
    return [
        f"batch {global_batch} + queue {queue_length} is below {num_prototypes} prototypes, so "
        f"codes cannot reach all of them in a step: use --method.num-prototypes {rows} or less, or "
        "--method.queue-length auto"
    ]


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
        # the reference too waits until the last row is filled
        return self._rows.shape[1] == self.length > 0

    @property
    def rows(self) -> Float[Tensor, "targets queue embed"]:
        """All rows, the newest first."""
        return self._rows

    def fill(self, rows: Float[Tensor, "targets queue embed"]) -> None:
        """Take these rows, the same on all ranks, in place of what there is."""
        self._rows = rows

    def rank_rows(self, target: int) -> Float[Tensor, "queue embed"]:
        """Return this rank's part of the rows of one target view; the parts cover the queue."""
        # every W-th row: all ranks together bring each row once (docs/decisions/0003)
        return self._rows[target, distributed.rank() :: distributed.world_size()]

    def joined_to(
        self, embeddings: Float[Tensor, "batch embed"], target: int
    ) -> Float[Tensor, "rows embed"]:
        """Return embeddings of a target view, followed by this rank's rows of a full queue."""
        if not self.is_full:
            return embeddings
        return torch.cat([embeddings, self.rank_rows(target).to(embeddings)])

    @torch.no_grad()
    def enqueue(self, embeddings: Float[Tensor, "targets batch embed"]) -> None:
        """Put the embeddings of all ranks at the front; the oldest rows fall out at the end."""
        # float32 whatever comes in: the saved queue has one type
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
