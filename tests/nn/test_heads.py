"""The projection head, written out."""

import pytest
import torch
from torch import nn

from swav.nn.heads import projection_head


@pytest.mark.parametrize("batchnorm", [True, False])
def test_linear_batchnorm_relu_linear(batchnorm):
    head = projection_head(6, hidden_dim=10, embed_dim=4, batchnorm=batchnorm)
    features = torch.randn(8, 6)
    first, last = head[0], head[-1]
    hidden = features @ first.weight.T + first.bias
    if batchnorm:
        spread = hidden.var(dim=0, unbiased=False).add(1e-5).sqrt()
        hidden = (hidden - hidden.mean(dim=0)) / spread
    expected = hidden.clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(head(features), expected)


def test_no_hidden_layer_is_linear():
    head = projection_head(6, hidden_dim=0, embed_dim=4)
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (6, 4)
    assert head.bias is not None
