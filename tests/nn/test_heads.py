"""The projection heads, written out."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from swav.nn.heads import EXPANDER, HeadConfig, embed_features, embed_views, unit_embeddings


def normalised(rows: torch.Tensor) -> torch.Tensor:
    return (rows - rows.mean(dim=0)) / rows.var(dim=0, unbiased=False).add(1e-5).sqrt()


@pytest.mark.parametrize("batchnorm", [True, False])
def test_linear_batchnorm_relu_linear(batchnorm):
    head = HeadConfig(hidden_dim=10, embed_dim=4, batchnorm=batchnorm).build(6)
    features = torch.randn(8, 6)
    first, last = head[0], head[-1]
    hidden = features @ first.weight.T + first.bias
    hidden = normalised(hidden) if batchnorm else hidden
    expected = hidden.clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(head(features), expected)


def test_no_hidden_layer_is_linear():
    head = HeadConfig(hidden_dim=0, embed_dim=4).build(6)
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (6, 4)
    assert head.bias is not None


def test_the_expander_has_two_hidden_layers_and_no_last_bias():
    head = replace(EXPANDER, hidden_dim=10, embed_dim=4).build(6)
    features = torch.randn(8, 6)
    first, second, last = (layer for layer in head if isinstance(layer, nn.Linear))
    hidden = normalised(features @ first.weight.T + first.bias).clamp(min=0)
    hidden = normalised(hidden @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(head(features), hidden @ last.weight.T)
    assert last.bias is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_dim": -1}, "hidden_dim -1 must not be negative"),
        ({"embed_dim": 0}, "embed_dim 0 must be at least 1"),
        ({"num_hidden": 0}, "num_hidden 0: for a linear head use hidden_dim 0"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        HeadConfig(**wrong)


def test_embeddings_are_the_heads_rows_of_all_views_together():
    head = HeadConfig(hidden_dim=10, embed_dim=4).build(6)
    views = [torch.randn(5, 6) for _ in range(3)]
    rows = head(torch.cat(views))  # BatchNorm sees them in one pass
    embeddings = embed_features(head, views)
    assert torch.equal(embeddings, rows.view(3, 5, 4))
    unit = unit_embeddings(head, views)
    torch.testing.assert_close(unit, rows.view(3, 5, 4) / rows.norm(dim=1).view(3, 5, 1))


def test_views_are_embedded_by_their_features():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    head = HeadConfig(hidden_dim=10, embed_dim=4).build(6)
    views = [torch.randn(5, 3, 2, 2) for _ in range(3)]
    expected = embed_features(head, [backbone(view) for view in views])
    torch.testing.assert_close(embed_views(backbone, head, views), expected)
    assert embed_features(head.bfloat16(), [torch.randn(5, 6).bfloat16()]).dtype == torch.float32
