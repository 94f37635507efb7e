"""Projection heads between backbone and loss."""

from torch import nn


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
