"""Prototypes: the trainable directions that embeddings are compared with."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav import distributed


class Prototypes(nn.Module):
    """One or several heads of prototype vectors; scores are cosines when both sides are unit.

    Started like a linear layer without bias. ``normalise`` puts the vectors on the unit sphere;
    the method calls it before every forward.
    """

    def __init__(self, embed_dim: int, num_prototypes: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Linear(embed_dim, number, bias=False) for number in num_prototypes
        )

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale every prototype to unit length, in place.

        One that is of unit length but for rounding stays as it is, to the bit.
        """
        for weight in self.parameters():
            # dividing a unit vector by its norm rounds: frozen prototypes would drift bit by bit
            is_unit = (weight.norm(dim=1, keepdim=True) - 1).abs() <= 1e-6
            weight.copy_(torch.where(is_unit, weight, F.normalize(weight, dim=1)))

    @torch.no_grad()
    def probabilities(
        self, embeddings: Float[Tensor, "batch embed"], *, temperature: float
    ) -> Float[Tensor, "batch prototypes"]:
        """Return the softmax over the first head; no picture depends on another."""
        # saved prototypes are those after the last update, so not of unit length
        weight = F.normalize(next(self.parameters()), dim=1)
        return (F.normalize(embeddings.float(), dim=1) @ weight.T / temperature).softmax(dim=1)

    def forward(
        self, embeddings: Float[Tensor, "batch embed"]
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        """Return the scores of each head, in float32 whatever the autocast."""
        # bfloat16 rounds a cosine by up to 0.002, and epsilon 0.05 makes that 0.04
        with torch.autocast(embeddings.device.type, enabled=False):
            return tuple(head(embeddings.float()) for head in self.heads)


class ClusterHead(NamedTuple):
    """What turns features into the probabilities of clusters."""

    projector: nn.Module
    prototypes: Prototypes
    temperature: float

    @torch.no_grad()
    def probabilities(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch prototypes"]:
        """Return the probability of each prototype of the first head."""
        return self.prototypes.probabilities(self.projector(features), temperature=self.temperature)


class PrototypeUsage:
    """At which step each prototype of each head was last chosen by a picture of any rank.

    It is part of the state of the method that keeps it.
    """

    def __init__(self, num_prototypes: Sequence[int]) -> None:
        self.last_chosen = [torch.full((number,), -1) for number in num_prototypes]  # -1 is never

    @torch.no_grad()
    def record(self, scores: Sequence[Float[Tensor, "batch _"]], step: int) -> None:
        """Note the nearest prototypes of these pictures by each head, on every rank together."""
        for head, rows in enumerate(scores):
            # a step, not a count: it joins over ranks by a maximum, and needs no reset
            last_chosen = self.last_chosen[head].scatter(0, rows.argmax(dim=1).cpu(), step)
            self.last_chosen[head] = distributed.all_reduce_max(last_chosen)

    @torch.no_grad()
    def metrics(
        self, codes: Sequence[Float[Tensor, "targets batch _"]], *, since: int
    ) -> dict[str, Tensor]:
        """Return what tells learning from collapse; heads are averaged."""
        # the loss cannot fall below the entropy of its codes (eq. 2)
        floor = torch.stack([torch.special.entr(head).sum(2).mean() for head in codes]).cpu()
        ln_k = torch.tensor([len(steps) for steps in self.last_chosen]).log()
        return {
            "code_entropy": (floor / ln_k).mean(),
            "prototypes_used": self.used_since(since),
            "loss_floor": floor.mean(),
            "ln_k": ln_k.mean(),
        }

    def used_since(self, step: int) -> Float[Tensor, ""]:
        """Return the fraction of prototypes chosen after ``step``, the mean over heads."""
        step = max(step, -1)
        return torch.stack([(last > step).float().mean() for last in self.last_chosen]).mean()
