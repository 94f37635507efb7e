"""Losses, as the papers state them."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from swav import distributed
from swav.ops.autocast import in_float32

_NO_NOISE = -1e4
"""The logarithm for a row that has no negative left: its loss and gradient are zero."""


def swapped_pairs(num_targets: int, num_views: int) -> Iterator[tuple[int, int]]:
    """Yield (target, prediction): every view but the target itself predicts each target."""
    for target in range(num_targets):
        for prediction in range(num_views):
            if prediction != target:
                yield target, prediction


def unordered_pairs(num_targets: int, num_views: int) -> Iterator[tuple[int, int]]:
    """Yield each pair of views of which one is a target once: for losses that are symmetric."""
    for target in range(num_targets):
        for other in range(target + 1, num_views):
            yield target, other


def swapped_prediction(
    scores: Float[Tensor, "batch prototypes"],
    codes: Float[Tensor, "batch prototypes"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of one view's softmax against another view's codes (SwAV, eq. 2).

    The mean is over this rank's pictures. Gradient flows to ``scores`` only; its lower bound is
    the entropy of the codes.
    """
    # float32: a cosine over 0.1, in bfloat16, is off by 0.02 (2^-9 x 10)
    log_probabilities = (scores.float() / temperature).log_softmax(dim=1)
    return -(codes.detach() * log_probabilities).sum(dim=1).mean()


def cluster_prediction(
    scores: Float[Tensor, "batch prototypes"],
    assignment: Int[Tensor, " batch"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the softmax against hard assignments (DeepCluster-v2).

    The mean is over this rank's pictures; those without a cluster, ``-1``, count as zero.
    """
    # float32, for the same reason as above
    logits = scores.float() / temperature
    # a sum, as a mean would leave out pictures without a cluster and weigh the others more
    total = F.cross_entropy(logits, assignment.long(), ignore_index=-1, reduction="sum")
    return total / len(scores)


@in_float32
def nt_xent(
    embeddings: Float[Tensor, "views batch embed"], *, temperature: float
) -> Float[Tensor, ""]:
    """Return the loss of SimCLR (eq. 1) over all pairs of views of a picture (SwAV, app. A.8).

    Every view is an anchor, and every other view of its picture a positive, told apart from all
    views of all other pictures of all ranks: the denominator is the positive and these. With two
    views this is NT-Xent. The mean is over the anchors of this rank and their positives; gradient
    flows to the embeddings of all ranks.

    Args:
        embeddings: unit vectors, as many on every rank.
        temperature: of the softmax over cosines.
    """
    num_views, batch, _ = embeddings.shape
    # with gradient: an embedding is a negative of the other ranks' anchors too
    every = distributed.all_gather_with_grad(embeddings).transpose(0, 1).flatten(1, 2)
    logits = torch.einsum("abe,vie->abvi", embeddings, every) / temperature
    own = distributed.rank() * batch + torch.arange(batch, device=logits.device)
    is_own = F.one_hot(own, every.shape[1]).bool()[None, :, None, :]
    # views of the own picture are no negatives, as in app. A.8; two views give SimCLR's eq. 1
    others = logits.masked_fill(is_own, -torch.inf).flatten(2).logsumexp(dim=2)
    positives = torch.einsum("abe,vbe->avb", embeddings, embeddings) / temperature
    # one positive to a denominator: each pair is a softmax of its own
    losses = torch.logaddexp(positives, others[:, None]) - positives
    is_pair = ~torch.eye(num_views, dtype=torch.bool, device=logits.device)
    return losses[is_pair].mean()


@in_float32
def info_nce(
    queries: Float[Tensor, "batch embed"],
    keys: Float[Tensor, "batch embed"],
    negatives: Float[Tensor, "queue embed"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the loss of telling a query's key from the negatives (MoCo, eq. 1).

    All are unit vectors. The mean is over this rank's queries, to which alone gradient flows.
    """
    # keys and queue without gradient: only the query encoder learns (sec. 3.2)
    positive = (queries * keys.detach()).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries @ negatives.detach().T], dim=1) / temperature
    return (logits.logsumexp(dim=1) - logits[:, 0]).mean()


@in_float32
def patch_nce(
    predictions: Float[Tensor, "pictures embed above columns"],
    targets: Float[Tensor, "pictures embed rows columns"],
    *,
    down: int,
    scale: float,
) -> Float[Tensor, ""]:
    """Return the loss of telling the patch ``down`` rows below from all others (CPC, eq. 4).

    The others are all patches of all pictures of all ranks, those of the own picture too. The mean
    is over this rank's predictions; gradient flows to the targets of all ranks.

    Args:
        predictions: of the rows that have a row so far below them.
        targets: of every row; as many pictures on every rank.
        down: rows from context to target.
        scale: of the products.
    """
    pictures, _, rows, columns = targets.shape
    every = distributed.all_gather_with_grad(targets).flatten(0, 1)
    logits = (
        scale
        * predictions.permute(0, 2, 3, 1).flatten(0, 2)
        @ (every.permute(0, 2, 3, 1).flatten(0, 2).T)
    )
    numbers = torch.arange(len(every) * rows * columns, device=logits.device)
    by_place = numbers.view(-1, pictures, rows, columns)[distributed.rank()]
    return F.cross_entropy(logits, by_place[:, down:].flatten())


@in_float32
def noise_contrast(
    embeddings: Float[Tensor, "batch embed"],
    memories: Float[Tensor, "batch embed"],
    drawn: Float[Tensor, "chosen embed"],
    *,
    temperature: float,
    log_normaliser: Float[Tensor, ""],
    num_images: int,
) -> Float[Tensor, ""]:
    """Return the noise-contrastive loss of instance discrimination (Wu et al., 2018, eq. 6-7).

    A picture's own row has to be told from rows drawn evenly from all ``num_images``.

    Args:
        embeddings: unit vectors.
        memories: the rows of the same pictures, unit vectors.
        drawn: rows of the bank, unit vectors.
        temperature: of the cosines.
        log_normaliser: logarithm of Z, the sum of exp over all rows, taken as a constant.
        num_images: rows of the bank.
    """
    # P_n of eq. 6 is even over the data: m / n
    log_noise = math.log(len(drawn) / num_images)

    def log_odds(cosines: Tensor) -> Tensor:  # of the data against the noise
        return cosines / temperature - log_normaliser - log_noise

    # logsigmoid does not underflow where h is close to 0 or 1
    is_data = F.logsigmoid(log_odds((embeddings * memories).sum(dim=1)))
    is_noise = F.logsigmoid(-log_odds(embeddings @ drawn.T)).sum(dim=1)
    return -(is_data + is_noise).mean()


@in_float32
def memory_nce(
    embeddings: Float[Tensor, "batch embed"],
    memories: Float[Tensor, "batch embed"],
    negatives: Float[Tensor, "chosen embed"],
    same: Bool[Tensor, "batch chosen"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return ``-log h(memory) - sum over negatives of log(1 - h(negative))``, the mean over rows.

    PIRL (Misra and van der Maaten, 2020), eqs. 3 and 4, with the embedding as the one that
    everything is compared to: ``h(c) = e(c) / (e(c) + sum over negatives of e(n))`` and ``e(c)``
    the exponential of cosine over ``temperature``. Gradient flows to ``embeddings`` only, where
    the others come from a bank.

    Args:
        embeddings: unit vectors.
        memories: of the same pictures, unit vectors.
        negatives: of other pictures, unit vectors.
        same: which negatives are of the row's own picture after all; they do not count.
        temperature: of the cosines.
    """
    positive = (embeddings * memories).sum(dim=1) / temperature
    negative = (embeddings @ negatives.T / temperature).masked_fill(same, -torch.inf)
    # a row without any negative would be -inf - -inf
    noise = negative.logsumexp(dim=1).clamp(min=_NO_NOISE)
    log_positive = positive - torch.logaddexp(positive, noise)
    # log(1 - h) by a difference of logarithms: 1 - h itself is 0 in float32 from 1 - 6e-8 on
    log_not_negative = noise[:, None] - torch.logaddexp(negative, noise[:, None])
    return -(log_positive + log_not_negative.sum(dim=1)).mean()


def bootstrap_distance(
    predictions: Float[Tensor, "batch embed"], targets: Float[Tensor, "batch embed"]
) -> Float[Tensor, ""]:
    """Return the squared distance of unit vectors, 2 - 2 cos (BYOL, eq. 2), over the batch.

    Gradient flows to ``predictions`` only; neither side need be of unit length.
    """
    # cosine_similarity normalises both sides, and stays finite at length zero
    return 2 - 2 * F.cosine_similarity(predictions, targets.detach(), dim=1).mean()


@in_float32
def cross_correlation(
    one: Float[Tensor, "batch embed"],
    other: Float[Tensor, "batch embed"],
    *,
    redundancy_weight: float,
) -> Float[Tensor, ""]:
    """Return how far the correlation of two views is from the identity (Barlow Twins, eq. 1-2).

    Each dimension is brought to mean 0 and variance 1 over ``batch``, which are the pictures of
    all ranks. A variance below 1e-5 does not count as one, as in a BatchNorm.
    """

    def standardised(rows: Tensor) -> Tensor:
        # correction 0, as BatchNorm without affine, which the authors' code uses here
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        return (rows - mean) / (variance + 1e-5).sqrt()

    correlation = standardised(one).T @ standardised(other) / len(one)
    invariance = (1 - correlation.diagonal()).square().sum()
    # the sum of all less the diagonal: no mask of 8,192 x 8,192
    redundancy = correlation.square().sum() - correlation.diagonal().square().sum()
    return invariance + redundancy_weight * redundancy


@in_float32
def variance_hinge(embeddings: Float[Tensor, "batch embed"]) -> Float[Tensor, ""]:
    """Return how much the standard deviations fall short of 1 on average (VICReg, eq. 1-2)."""
    # 1e-4 under the root keeps the gradient finite at variance 0 (eq. 1)
    deviations = (embeddings.var(dim=0) + 1e-4).sqrt()
    return F.relu(1 - deviations).mean()


@in_float32
def covariance_penalty(embeddings: Float[Tensor, "batch embed"]) -> Float[Tensor, ""]:
    """Return the squared covariances of different dimensions, over their number (VICReg, eq. 4)."""
    centred = embeddings - embeddings.mean(dim=0)
    # n - 1 as in eq. 3
    covariance = centred.T @ centred / (len(embeddings) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / len(covariance)
