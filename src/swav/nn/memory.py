"""Memory bank: one embedding of every picture of the data, spread over the ranks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from swav import distributed

CHUNK_ROWS = 65_536
"""Rows that are drawn at once: the first rows of a bank depend on no number of ranks."""


class MemoryBank(nn.Module):
    """The newest embedding of every picture, or a moving average, as unit vectors.

    Row ``i`` belongs to picture ``i`` of the data and lies on rank ``i mod ranks``, wherever the
    picture was seen. A bank is state but no buffer, so DDP leaves it alone; it is saved whole
    and cut anew when it is loaded, so the number of ranks may change. Its rows start as random
    unit vectors drawn from torch's generator (Wu et al., 2018), the same for any number of ranks.

    ``state_dict()``, ``update``, ``rows_of`` and ``own_rows_of`` are collective: every rank has
    to call them.
    """

    def __init__(
        self, num_images: int, embed_dim: int, *, num_banks: int = 1, momentum: float = 0.0
    ) -> None:
        """Draw the first rows.

        Args:
            num_images: pictures of the data; 0 where none are known.
            embed_dim: size of an embedding.
            num_banks: rows of each picture, such as one for each target view.
            momentum: share of the old row in the new one; 0 repictures it.

        Raises:
            ValueError: if ``momentum`` is not in [0, 1).
        """
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum {momentum} must be at least 0 and below 1: NPID has 0.5")
        self.num_images = num_images
        self.momentum = momentum
        # the draws of rows, pictures and orders follow from one number, which the run's seed fixes
        self._seed = int(torch.randint(2**31, ()))
        self._rows = self._drawn(num_banks, embed_dim)
        self._seen = torch.zeros(self._rows.shape[1], dtype=torch.bool)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MemoryBank":
        """Go along when the module moves to another device."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # no buffers, which DDP would take for equal on all ranks, so they do not move by themselves
        self._rows, self._seen = fn(self._rows), fn(self._seen)
        return self

    @property
    def rows(self) -> Float[Tensor, "banks rows embed"]:
        """This rank's rows: of pictures ``rank``, ``rank + ranks``, ``rank + 2 ranks``, ..."""
        return self._rows

    @property
    def seen(self) -> Bool[Tensor, " rows"]:
        """Which of this rank's rows have been updated, rather than drawn."""
        return self._seen

    def draw(self, number: int, *, step: int) -> Int[Tensor, " chosen"]:
        """Return random pictures, with repeats: a function of seed and step, equal on all ranks."""
        # numpy takes a tuple as its seed: no draw depends on an earlier one
        chosen = np.random.default_rng((self._seed, step)).integers(self.num_images, size=number)
        return torch.from_numpy(chosen)

    def shuffled(self, *, stream: tuple[int, ...]) -> Int[Tensor, " images"]:
        """Return all pictures in a random order: a function of seed and stream alone."""
        order = np.random.default_rng((self._seed, *stream)).permutation(self.num_images)
        return torch.from_numpy(order)

    @torch.no_grad()
    def update(
        self, indices: Int[Tensor, " batch"], embeddings: Float[Tensor, "banks batch embed"]
    ) -> None:
        """Put in the embeddings of all ranks; of a picture that occurs twice, the last one.

        Args:
            indices: pictures that this rank has seen, as many on every rank.
            embeddings: of these pictures, one for each bank; of any length.
        """
        every = distributed.all_gather(indices).flatten()
        new = distributed.all_gather(embeddings.float()).transpose(0, 1).flatten(1, 2)
        last_row = torch.full((self.num_images,), -1, device=every.device)
        # index assignment with repeats is not defined; the largest position is the last one
        last_row.scatter_reduce_(0, every, torch.arange(len(every), device=every.device), "amax")
        own = torch.unique(every)
        own = own[own % distributed.world_size() == distributed.rank()]
        rows, new = own // distributed.world_size(), F.normalize(new[:, last_row[own]], dim=2)
        # the first embedding replaces the random row, whatever the momentum
        old = torch.where(self._seen[rows][:, None], self._rows[:, rows], new)
        self._rows[:, rows] = F.normalize(old.lerp(new, 1 - self.momentum), dim=2)
        self._seen[rows] = True

    @torch.no_grad()
    def rows_of(self, indices: Int[Tensor, " chosen"]) -> Float[Tensor, "banks chosen embed"]:
        """Return the rows of some pictures, which are the same on all ranks."""
        indices = indices.to(self._rows.device)
        owned = indices % distributed.world_size() == distributed.rank()
        local = torch.where(owned, indices // distributed.world_size(), 0)
        # a row is on one rank; the others add zero
        return distributed.all_reduce_sum(self._rows[:, local] * owned[:, None])

    @torch.no_grad()
    def own_rows_of(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "banks batch embed"]:
        """Return the rows of this rank's pictures, of which every rank has as many."""
        rows = self.rows_of(distributed.all_gather(indices).flatten())
        return rows.chunk(distributed.world_size(), dim=1)[distributed.rank()]

    def whole(self, rank_rows: Tensor, *, dim: int = 0) -> Tensor:
        """Return a tensor with one entry for each picture from the ranks' entries for their rows.

        Args:
            rank_rows: entries for the rows of this rank, along ``dim``.
            dim: axis of the rows.
        """
        every = distributed.all_gather(rank_rows.movedim(dim, 0))  # (ranks, rows, ...)
        return every.transpose(0, 1).flatten(0, 1)[: self.num_images].movedim(0, dim)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return all rows, from all ranks, and which of them have been seen."""
        return {"rows": self.whole(self._rows, dim=1), "seen": self.whole(self._seen)}

    def set_extra_state(self, state: Any) -> None:
        """Take this rank's rows from those of all pictures.

        Raises:
            ValueError: if they are of another number of pictures, banks or size.
        """
        rows, seen = state["rows"], state["seen"]
        expected = (len(self._rows), self.num_images, self._rows.shape[2])
        if tuple(rows.shape) != expected:
            raise ValueError(
                f"the saved memory bank is {tuple(rows.shape)} (banks, pictures, embedding), this "
                f"run's is {expected}: continue with the data and settings of the run that saved it"
            )
        num_rows = -(-self.num_images // distributed.world_size())  # the last may be of no picture
        pictures = distributed.rank() + distributed.world_size() * torch.arange(num_rows)
        pictures = pictures.to(rows.device)
        is_picture, pictures = pictures < self.num_images, pictures.clamp(max=self.num_images - 1)
        self._rows, self._seen = rows[:, pictures], seen[pictures] & is_picture

    def _drawn(self, num_banks: int, embed_dim: int) -> Float[Tensor, "banks rows embed"]:
        """Return this rank's random unit rows."""
        parts = [torch.empty(0, num_banks, embed_dim)]  # all there is without pictures
        rank, ranks = distributed.rank(), distributed.world_size()
        for start in range(0, self.num_images, CHUNK_ROWS):
            # drawn whole and cut after: no rank depends on how many there are
            number = min(CHUNK_ROWS, self.num_images - start)
            generator = torch.Generator().manual_seed((self._seed + start) % 2**32)
            rows = torch.randn(number, num_banks, embed_dim, generator=generator)
            first = (rank - start) % ranks
            parts.append(rows[first::ranks])
        rows = torch.cat(parts).transpose(0, 1)
        # every rank has as many rows, so that they can be gathered
        missing = -(-self.num_images // ranks) - rows.shape[1]
        return F.normalize(torch.cat([rows, rows[:, :missing]], dim=1), dim=2)
