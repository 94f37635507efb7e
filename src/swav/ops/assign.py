"""Optimal-transport assignment of pictures to prototypes, in equal shares or by a prior."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from swav import distributed
from swav.config import check_ranges


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "batch prototypes"],
    *,
    epsilon: float,
    iterations: int = 3,
    prior: Float[Tensor, " prototypes"] | None = None,
) -> Float[Tensor, "batch prototypes"]:
    """Return soft codes that share the pictures of all ranks equally between prototypes.

    Sinkhorn-Knopp on ``exp(scores / epsilon)`` (SwAV, sec. 3.1) in log space, so that no
    epsilon overflows. ``batch`` is this rank's share; prototype totals are taken over all
    ranks. Every row of the result sums to one; a picture whose scores are all ``-inf``, which
    can go nowhere, gets the uniform row and takes no share from the others.

    Args:
        scores: similarity of pictures to prototypes, any finite value or ``-inf``.
        epsilon: entropy of the codes; lower is closer to a hard assignment.
        iterations: rounds of (prototypes, pictures) normalisation; with 0 the softmax.
        prior: shares of the pictures that prototypes get, in place of equal ones; of any sum.

    Raises:
        ValueError: if ``epsilon`` is not positive or ``iterations`` is negative.
    """
    _check(epsilon, iterations)
    # autocast would bring the sums back to bfloat16
    with torch.autocast(scores.device.type, enabled=False):
        log_codes = scores.to(_precision(scores)) / epsilon
        # the prior need not add up to one: the second step of a round takes any factor out
        log_prior = torch.zeros_like(log_codes[0]) if prior is None else prior.to(log_codes).log()
        # prototypes first, pictures last: each code sums to one exactly, while shares are near
        # their prior (0.993 to 1.001 of it after 3 rounds of random unit vectors, K = 300)
        for _ in range(iterations):
            log_codes = log_codes - _finite(_log_mass(log_codes)) + log_prior
            log_codes = log_codes - _finite(log_codes.logsumexp(dim=1, keepdim=True))
        # softmax rather than exp: rows sum to one also without any iteration
        return _codes(log_codes)


@torch.no_grad()
def unbalanced_sinkhorn(
    scores: Float[Tensor, "batch prototypes"],
    prior: Float[Tensor, " prototypes"],
    *,
    epsilon: float,
    strength: float,
    iterations: int = 3,
) -> Float[Tensor, "batch prototypes"]:
    """Return soft codes whose prototypes may leave their prior where the scores insist.

    Optimal transport with entropy ``epsilon`` in which every picture is still assigned as a
    whole, but leaving the prior only costs ``strength`` times the Kullback-Leibler divergence of
    the mass that prototypes get from it (Chizat et al., "Scaling algorithms for
    unbalanced optimal transport problems", 2018). A large ``strength`` is ``sinkhorn``, one of
    0 the softmax. Rounds, ranks and pictures that can go nowhere are as there.

    Args:
        scores: similarity of pictures to prototypes, any finite value or ``-inf``.
        prior: shares of the pictures that prototypes should get, adding up to one.
        epsilon: entropy of the codes.
        strength: in the units of the scores, as ``epsilon`` is.
        iterations: rounds of (prototypes, pictures).

    Raises:
        ValueError: if ``epsilon`` or ``strength`` is not positive or ``iterations`` is negative.
    """
    _check(epsilon, iterations)
    if not strength > 0:
        raise ValueError(f"strength {strength} must be positive: try {10 * epsilon:g}")
    with torch.autocast(scores.device.type, enabled=False):
        log_scores = scores.to(_precision(scores)) / epsilon
        # pictures of scores -inf get no share, so they are not counted either
        can_go = log_scores.isfinite().any(dim=1, keepdim=True)
        log_images = distributed.all_reduce_sum(can_go.sum()).clamp(min=1).to(log_scores).log()
        log_prior, power = prior.to(log_scores).log(), strength / (strength + epsilon)
        potentials = torch.zeros_like(log_prior)
        for _ in range(iterations):
            log_codes = log_scores - _finite((log_scores + potentials).logsumexp(1, keepdim=True))
            # power 1 is the exact transport, 0 leaves the softmax (Chizat et al., 2018)
            potentials = power * (log_prior - _finite(_log_mass(log_codes) - log_images))
        return _codes(log_scores + potentials)


def power_law(number: int, *, exponent: float) -> Float[Tensor, " prototypes"]:
    """Return a prior of sum one that falls as the rank of the prototype to ``-exponent``."""
    prior = torch.arange(1, number + 1, dtype=torch.float64) ** -exponent
    return (prior / prior.sum()).float()


@dataclass(frozen=True, kw_only=True)
class Prior:
    """How many of the pictures each prototype should get, and how firmly; by default equal."""

    exponent: float = 0.0
    """Fall as a power law, rank to minus this; 0 is equal."""
    weights: tuple[float, ...] = ()
    """As given, one for each prototype, in place of the power law; of any sum."""
    strength: float | None = None
    """Hold to the prior only this firmly (unbalanced transport, in units of the scores; try ten
    times epsilon: with epsilon itself all pictures may end in one prototype); by default the codes
    keep it exactly."""

    def __post_init__(self) -> None:
        if self.weights and min(self.weights) <= 0:
            raise ValueError(f"weights {self.weights} of a prior must all be positive")
        if self.strength is not None and not self.strength > 0:
            raise ValueError(f"strength {self.strength} must be positive: try ten times epsilon")
        check_ranges(self, exponent="[0, 10]", weights="(0, inf)", strength="(0, inf)")

    def of(self, number: int) -> Float[Tensor, " prototypes"]:
        """Return the shares of so many prototypes, which add up to one."""
        if not self.weights:
            return power_law(number, exponent=self.exponent)
        weights = torch.tensor(self.weights)
        return weights / weights.sum()

    def check(self, num_prototypes: tuple[int, ...]) -> None:
        """Raise a ValueError if the weights are for another number of prototypes."""
        for number in num_prototypes:
            if self.weights and len(self.weights) != number:
                raise ValueError(
                    f"prior.weights has {len(self.weights)} values for a head of {number} "
                    "prototypes: give one for each, the same for all heads"
                )

    def codes(
        self, scores: Float[Tensor, "batch prototypes"], *, epsilon: float, iterations: int
    ) -> Float[Tensor, "batch prototypes"]:
        """Return soft codes by the transport for this prior: exact, or one that may leave it."""
        prior = self.of(scores.shape[1])
        if self.strength is not None:
            return unbalanced_sinkhorn(
                scores, prior, epsilon=epsilon, strength=self.strength, iterations=iterations
            )
        is_equal = not self.weights and self.exponent == 0
        return sinkhorn(
            scores, epsilon=epsilon, iterations=iterations, prior=None if is_equal else prior
        )


def _check(epsilon: float, iterations: int) -> None:
    if not epsilon > 0:
        raise ValueError(
            f"epsilon {epsilon} must be positive: SwAV uses 0.05, small data 0.02-0.05"
        )
    if iterations < 0:
        raise ValueError(f"iterations {iterations} must not be negative: SwAV uses 3")


def _precision(scores: Tensor) -> torch.dtype:
    """Float32 rounds scores / epsilon by up to 6e-5 where epsilon is 0.001; MPS is no wider."""
    return torch.float32 if scores.device.type == "mps" else torch.float64


def _log_mass(log_codes: Float[Tensor, "batch prototypes"]) -> Float[Tensor, " prototypes"]:
    """Return the mass of each prototype over all ranks."""
    # K numbers from each rank instead of its batch: the sum of exp does not care for the order
    return distributed.all_gather(log_codes.logsumexp(dim=0)).logsumexp(dim=0)


def _codes(log_codes: Float[Tensor, "batch prototypes"]) -> Float[Tensor, "batch prototypes"]:
    # a row of -inf would be NaN
    nowhere = log_codes.isneginf().all(dim=1, keepdim=True)
    return log_codes.masked_fill(nowhere, 0).softmax(dim=1).float()


def _finite(log_mass: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the mass to divide by, one where there is none."""
    return log_mass.masked_fill(log_mass.isneginf(), 0)


def hard_codes(
    codes: Float[Tensor, "batch prototypes"],
) -> Float[Tensor, "batch prototypes"]:
    """Return the codes with all mass on the largest entry of each row (SwAV, sec. 3.1)."""
    return F.one_hot(codes.argmax(dim=1), codes.shape[1]).to(codes.dtype)
