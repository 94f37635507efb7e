"""Hard clusters of all pictures, made anew each epoch from a memory bank (DeepCluster-v2)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from swav.nn.memory import MemoryBank

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
METRICS = (
    *(f"cluster_size_{100 * quantile:.0f}" for quantile in QUANTILES),
    "prototypes_used",
    "nmi_last_epoch",
)

UNKNOWN = -1.0
"""Of metrics that there are not yet; not a NaN, which would not equal itself."""


class EpochClusters(nn.Module):
    """The cluster of every picture by each head, from the embeddings of the epoch before.

    Bank ``b`` takes the embeddings of target view ``b`` (counted round if there are fewer), and
    head ``h`` clusters bank ``h`` (likewise). Every rank has all clusters, -1 for a picture that
    was not seen yet.
    """

    def __init__(
        self, num_images: int, embed_dim: int, *, num_prototypes: Sequence[int], num_banks: int
    ) -> None:
        super().__init__()
        self.bank = MemoryBank(num_images, embed_dim, num_banks=num_banks)
        self.num_prototypes = tuple(num_prototypes)
        # int32: three heads of ImageNet's pictures take 15 MB, in int64 twice that
        unknown = torch.full((len(self.num_prototypes), num_images), -1, dtype=torch.int32)
        self._assignments = unknown
        self._metrics = torch.full((len(METRICS),), UNKNOWN)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def of(self, indices: Int[Tensor, " batch"]) -> Int[Tensor, "heads batch"]:
        """Return the cluster of some pictures by each head."""
        return self._assignments[:, indices.to(self._assignments.device)].long()

    def remember(
        self, indices: Int[Tensor, " batch"], embeddings: Float[Tensor, "targets batch embed"]
    ) -> None:
        """Keep the embeddings of a micro-batch until ``update_bank``."""
        # fewer target views than banks: the banks take turns
        views = torch.arange(len(self.bank.rows)) % len(embeddings)
        self._waiting.append((indices, embeddings.detach()[views]))

    def update_bank(self) -> None:
        """Put what was remembered into the bank. Every rank has to call it."""
        indices, embeddings = zip(*self._waiting, strict=True)
        self.bank.update(torch.cat(indices), torch.cat(embeddings, dim=1))
        self._waiting.clear()

    def forget(self) -> None:
        """Drop what is remembered: of a step that was only a trial."""
        self._waiting.clear()

    def rows(self, head: int) -> Float[Tensor, "rows embed"]:
        """Return what a head clusters: this rank's rows of its bank that have been seen.

        Raises:
            ValueError: if the bank is still empty.
        """
        if not self.bank.whole(self.bank.seen).any():
            raise ValueError("no picture has an embedding yet: call prepare(batches) before step 0")
        return self.bank.rows[head % len(self.bank.rows), self.bank.seen]

    def start(self, head: int, *, epoch: int) -> Float[Tensor, "prototypes embed"]:
        """Return rows of random pictures, one for each prototype, the same on all ranks.

        Raises:
            ValueError: if fewer pictures have been seen.
        """
        number = self.num_prototypes[head]
        # by epoch and head, not by a generator: every rank and every resumed run starts alike
        order = self.bank.shuffled(stream=(epoch, head))
        chosen = order[self.bank.whole(self.bank.seen).cpu()[order]][:number]
        if len(chosen) < number:
            raise ValueError(
                f"{number} prototypes for {len(chosen)} pictures with an embedding: use "
                f"--method.num-prototypes {max(len(chosen) // 10, 2)} or so"
            )
        return self.bank.rows_of(chosen)[head % len(self.bank.rows)]

    def assign(self, by_head: Sequence[Int[Tensor, " rows"]]) -> None:
        """Take the cluster of each of ``rows(head)``, for every head; measure what changed."""
        every_head = []
        for nearest in by_head:
            own = torch.full(self.bank.seen.shape, -1, dtype=torch.int32, device=nearest.device)
            own[self.bank.seen] = nearest.int()
            every_head.append(self.bank.whole(own))
        assignments = torch.stack(every_head)
        self._metrics = self._measured(self._assignments.cpu(), assignments.cpu())
        self._assignments = assignments

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Quantiles of the cluster sizes, share of clusters that are not empty, and the NMI.

        The NMI (normalised mutual information) compares the clusters with those of the epoch
        before, if there were any: it grows as they settle. All are means over heads.
        """
        return {
            name: value
            for name, value in zip(METRICS, self._metrics, strict=True)
            if value > UNKNOWN
        }

    def _measured(
        self, before: Int[Tensor, "heads images"], now: Int[Tensor, "heads images"]
    ) -> Float[Tensor, " metrics"]:
        by_head = []
        for number, old, new in zip(self.num_prototypes, before, now, strict=True):
            sizes = torch.bincount(new[new >= 0], minlength=number)
            # quantile takes no integers
            quantiles = sizes.double().quantile(torch.tensor(QUANTILES, dtype=torch.float64))
            # pictures that had no cluster then, or have none now, compare with nothing
            in_both = (old >= 0) & (new >= 0)
            nmi = UNKNOWN
            if in_both.any():
                # slow to import, and only needed here
                from sklearn.metrics import normalized_mutual_info_score

                nmi = normalized_mutual_info_score(old[in_both].numpy(), new[in_both].numpy())
            by_head.append([*quantiles.tolist(), float((sizes > 0).double().mean()), nmi])
        return torch.tensor(by_head).mean(dim=0)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the clusters of all pictures, and the metrics."""
        return {"assignments": self._assignments, "figures": self._metrics}

    def set_extra_state(self, state: Any) -> None:
        """Take the state of ``get_extra_state``."""
        self._assignments = state["assignments"].clone()
        self._metrics = state["figures"].clone()
