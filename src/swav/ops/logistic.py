"""Multinomial logistic regression with a squared penalty, in coordinates that make it round.

L-BFGS needs hundreds of steps where features vary along some directions a thousand times as
much as along others. Along the principal axes, each divided by the root of its own curvature,
the loss is close to a round bowl, and a few dozen steps find the same minimum.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

SMALLEST = 1e-6
"""Variance, relative to the largest, below which a direction is rounding."""


class Axes(NamedTuple):
    """The directions along which features vary; the penalised minimum lies in their span."""

    directions: Float[Tensor, "features rank"]
    variances: Float[Tensor, " rank"]


class Probe(NamedTuple):
    """A linear classifier of coordinates along axes."""

    weight: Float[Tensor, "rank classes"]
    bias: Float[Tensor, " classes"]
    iterations: int = 0

    def logits(self, coordinates: Float[Tensor, "batch rank"]) -> Float[Tensor, "batch classes"]:
        """Return the logit of every class."""
        return coordinates @ self.weight + self.bias


def principal_axes(values: Float[Tensor, "images features"]) -> Axes:
    """Return the principal axes of centred features, by the smaller of the two Gram matrices."""
    num_images, num_features = values.shape
    if num_features <= num_images:
        # the decomposition in float64: its small values decide what is kept
        variances, directions = torch.linalg.eigh((values.T @ values / num_images).double())
    else:
        variances, left = torch.linalg.eigh((values @ values.T / num_images).double())
        directions = values.double().T @ left
        # a direction without variance has no length; it is dropped below
        directions /= directions.norm(dim=0).clamp(min=1e-30)
    kept = variances > SMALLEST * variances[-1]
    return Axes(directions[:, kept].to(values), variances[kept].to(values))


def fit_logistic(
    coordinates: Float[Tensor, "images rank"],
    labels: Int64[Tensor, " images"],
    start: Probe,
    *,
    variances: Float[Tensor, " rank"],
    penalty: float,
    tolerance: float,
    max_iterations: int,
) -> Probe:
    """Return the minimum of mean cross-entropy + ``penalty`` / 2 x squared norm of the weights.

    Args:
        coordinates: of the pictures along the axes.
        labels: from 0 to the number of classes less one.
        start: where to begin, such as the minimum for another penalty.
        variances: along the axes.
        penalty: on the weights, not on the bias; above 0.
        tolerance: largest gradient element, in round coordinates, at which to stop.
        max_iterations: after which to stop anyway: ``iterations`` of the result says so.
    """
    num_classes = len(start.bias)
    guess = (1 - 1 / num_classes) / num_classes  # curvature of the loss at equal probabilities
    scale = (guess * variances + penalty).rsqrt()[:, None]
    round_coordinates = coordinates * scale.T
    weight = (start.weight / scale).requires_grad_()
    bias = (start.bias * guess**0.5).requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        # the line search needs one or two evaluations a step
        max_eval=2 * max_iterations,
        tolerance_grad=tolerance,
        # only the gradient says when it is done: a flat stretch is no minimum
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        solver.zero_grad()
        logits = round_coordinates @ weight + bias / guess**0.5
        value = F.cross_entropy(logits, labels) + penalty / 2 * (weight * scale).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    # an evaluation may be called under no_grad
    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    iterations = int(solver.state[weight]["n_iter"])
    return Probe(weight.detach() * scale, bias.detach() / guess**0.5, iterations)
