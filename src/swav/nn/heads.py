"""Projection heads between backbone and loss, and the embeddings that come out of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swav.nn.backbones import encode_views


def embed_views(
    backbone: nn.Module, head: nn.Module, views: Sequence[Float[Tensor, "batch channels _ _"]]
) -> Float[Tensor, "views batch embed"]:
    """Return the embeddings of all views, not normalised, in float32 whatever the autocast.

    One backbone pass for each size, and one pass of the head over all views, because the
    statistics of its BatchNorm depend on what it sees together.
    """
    embeddings: Tensor = head(torch.cat(encode_views(backbone, views)))
    return embeddings.float().view(len(views), -1, embeddings.shape[1])


def projection_head(
    feature_dim: int, *, hidden_dim: int, embed_dim: int, batchnorm: bool = True
) -> nn.Module:
    """Return SwAV's head: linear, BatchNorm, ReLU, linear; or one linear layer for no hidden.

    Args:
        feature_dim: size of the backbone's output.
        hidden_dim: width of the hidden layer; 0 for a linear head.
        embed_dim: size of the embedding, not normalised here.
        batchnorm: BatchNorm after the hidden layer (the published 5x wide network has none).
    """
    if hidden_dim == 0:
        return nn.Linear(feature_dim, embed_dim)
    layers: list[nn.Module] = [nn.Linear(feature_dim, hidden_dim)]
    if batchnorm:
        layers.append(nn.BatchNorm1d(hidden_dim))
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(hidden_dim, embed_dim))


def expander(
    feature_dim: int, *, hidden_dim: int, embed_dim: int, batchnorm: bool = True
) -> nn.Sequential:
    """Return the head of Barlow Twins and VICReg: two hidden layers, and a linear one.

    The last layer has no bias: both losses look at deviations from the mean of the batch.

    Args:
        feature_dim: size of the backbone's output.
        hidden_dim: width of both hidden layers.
        embed_dim: size of the embedding.
        batchnorm: BatchNorm after each hidden layer.
    """
    layers: list[nn.Module] = []
    for width in (feature_dim, hidden_dim):
        layers.append(nn.Linear(width, hidden_dim))
        if batchnorm:
            layers.append(nn.BatchNorm1d(hidden_dim))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers, nn.Linear(hidden_dim, embed_dim, bias=False))
