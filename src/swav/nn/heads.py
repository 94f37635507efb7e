"""Projection heads between backbone and loss, and the embeddings that come out of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav.config import check_ranges
from swav.nn.backbones import encode_views


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """A projection head: hidden layers (linear, BatchNorm, ReLU), then a linear one."""

    hidden_dim: int = 2048
    """Width of the hidden layers; 0 makes the head linear."""
    embed_dim: int = 128
    """Size of the embedding."""
    batchnorm: bool = True
    """BatchNorm in every hidden layer (the published 5x wide network of SwAV has none)."""
    num_hidden: int = 1
    """Hidden layers, where they have a width."""
    bias: bool = True
    """Whether the last layer has one."""

    def __post_init__(self) -> None:
        if self.hidden_dim < 0:
            raise ValueError(f"hidden_dim {self.hidden_dim} must not be negative: 0 is linear")
        if self.embed_dim < 1:
            raise ValueError(f"embed_dim {self.embed_dim} must be at least 1: SwAV has 128")
        if self.num_hidden < 1:
            raise ValueError(f"num_hidden {self.num_hidden}: for a linear head use hidden_dim 0")
        check_ranges(self, hidden_dim="[0, 1e6]", embed_dim="[1, 1e6]", num_hidden="[1, 100]")

    def build(self, input_dim: int) -> nn.Module:
        """Return the head for features of this size; its embeddings are not normalised."""
        if self.hidden_dim == 0:
            return nn.Linear(input_dim, self.embed_dim, bias=self.bias)
        layers: list[nn.Module] = []
        for width in (input_dim, *[self.hidden_dim] * (self.num_hidden - 1)):
            # bias before BatchNorm, though it has no effect there: published weights have one
            layers += hidden_layer(width, self.hidden_dim, batchnorm=self.batchnorm)
        return nn.Sequential(*layers, nn.Linear(self.hidden_dim, self.embed_dim, bias=self.bias))


EXPANDER = HeadConfig(hidden_dim=8192, embed_dim=8192, num_hidden=2, bias=False)
"""The head of Barlow Twins and VICReg, whose losses look at deviations from the mean of the batch:
a bias of the last layer would have no gradient."""


def hidden_layer(input_dim: int, hidden_dim: int, *, batchnorm: bool) -> list[nn.Module]:
    """Return a linear layer, BatchNorm if asked for, and ReLU."""
    norm = [nn.BatchNorm1d(hidden_dim)] if batchnorm else []
    return [nn.Linear(input_dim, hidden_dim), *norm, nn.ReLU(inplace=True)]


def embed_views(
    backbone: nn.Module,
    head: nn.Module,
    views: Sequence[Float[Tensor, "batch channels _ _"]],
    *,
    per_view: bool = False,
) -> Float[Tensor, "views batch embed"]:
    """Return the embeddings of all views, not normalised, in float32 whatever the autocast.

    One backbone pass for each size, and one pass of the head over all views, because the
    statistics of BatchNorm depend on what it sees together; ``per_view`` makes a pass of each view.
    """
    if per_view:
        # BYOL's, Barlow Twins' and VICReg's code calls the network once for each view
        return torch.cat([embed_views(backbone, head, [view]) for view in views])
    return embed_features(head, encode_views(backbone, views))


def embed_features(
    head: nn.Module, features: Sequence[Float[Tensor, "batch features"]]
) -> Float[Tensor, "views batch embed"]:
    """Return the embeddings of the features of all views, not normalised, in float32."""
    # head BatchNorm sees all crops together, as in the reference (rows: view after view)
    embeddings: Tensor = head(torch.cat(list(features)))
    return embeddings.float().view(len(features), -1, embeddings.shape[1])


def unit_embeddings(
    head: nn.Module, features: Sequence[Float[Tensor, "batch features"]]
) -> Float[Tensor, "views batch embed"]:
    """Return the embeddings of the features of all views on the unit sphere."""
    return F.normalize(embed_features(head, features), dim=2)
