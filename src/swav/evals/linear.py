"""A linear probe: multinomial logistic regression on frozen features.

The network is not touched and no augmentation is drawn, so the number depends on the features
alone. The penalty is chosen by cross-validation on the pictures it learns from, never on those
it is scored on.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from swav.config import check_ranges
from swav.evals.harness.accuracy import count_right, share_metrics, top1_and_top5
from swav.evals.harness.extract import Features
from swav.evals.harness.input import AS_THE_MODEL, InputConfig
from swav.evals.harness.splits import (
    check_comparable,
    check_held_out,
    labels_of,
    stratified_folds,
    stratified_split,
    take,
)
from swav.evals.harness.subject import Subject
from swav.ops.logistic import Axes, Probe, fit_logistic, principal_axes
from swav.run_folder.result import Result


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Accuracy of multinomial logistic regression on standardised, frozen features."""

    name: ClassVar[str] = "linear"
    title: ClassVar[str] = "Linear classifier"
    finding: ClassVar[str] = (
        "of the pictures get their right label from a linear classifier on frozen features"
    )
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ("start", "random", "pixels", "patch-kmeans")
    input: ClassVar[InputConfig] = AS_THE_MODEL
    penalties: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
    """Weights of half the squared norm against the mean loss of a picture."""
    folds: int = 3
    """Of the cross-validation that chooses the penalty."""
    max_chosen_on: int = 10_000
    """Pictures of the cross-validation, drawn by seed; the probe itself learns from all."""
    held_out: float = 0.2
    """Share of each class that is scored where there is no score set."""
    max_iterations: int = 500
    tolerance: float = 3e-4
    """Largest gradient element at which the solver stops, in coordinates in which the loss is
    close to round."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError(f"penalties {self.penalties} must be numbers above 0")
        if self.max_iterations < 1 or self.tolerance <= 0:
            raise ValueError(
                f"max_iterations {self.max_iterations} must be at least 1, and tolerance "
                f"{self.tolerance} above 0"
            )
        if self.folds < 2:
            raise ValueError(f"folds {self.folds} must be 2 or more")
        if self.max_chosen_on < 1:
            raise ValueError(f"max_chosen_on {self.max_chosen_on} must be 1 or more")
        check_held_out(self.held_out)
        check_ranges(self, penalties="(0, inf)", tolerance="(0, inf)", seed="[0, 9e18]")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on a subject's features."""
        return run(self, subject.train_features, subject.test_features)


class _Task(NamedTuple):
    """Standardised pictures to learn from, along their principal axes; classes counted from 0."""

    coordinates: Float[Tensor, "images rank"]
    labels: Int64[Tensor, " images"]
    axes: Axes
    num_classes: int

    def fitted(
        self, config: LinearConfig, start: Probe, penalty: float, rows: Tensor | None = None
    ) -> Probe:
        """Return the probe of some rows, or of all."""
        return fit_logistic(
            self.coordinates if rows is None else self.coordinates[rows],
            self.labels if rows is None else self.labels[rows],
            start,
            variances=self.axes.variances,
            penalty=penalty,
            tolerance=config.tolerance,
            max_iterations=config.max_iterations,
        )

    def nothing(self) -> Probe:
        """Return the probe that knows nothing."""
        weight = torch.zeros(self.coordinates.shape[1], self.num_classes)
        return Probe(weight, torch.zeros(self.num_classes))


def run(config: LinearConfig, train: Features, test: Features | None = None) -> Result:
    """Return top-1 and top-5 accuracy; without ``test`` a stratified share is held out.

    Raises:
        ValueError: if labels are missing, classes differ, or a set is too small to split.
    """
    own_split = test is None
    if test is None:
        labels = labels_of(train, task="linear")
        split = stratified_split(labels, held_out=config.held_out, seed=config.seed)
        train, test = take(train, split.train), take(train, split.held_out)
    check_comparable(train, test, task="linear")
    train_values, test_values = _standardised(train, test)
    classes, numbers = np.unique(labels_of(train, task="linear"), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"linear needs two classes or more to tell apart, not {train.classes}")
    # the solver is 70 times as fast along these axes (docs/decisions/0012)
    axes = principal_axes(train_values)
    learn = _Task(train_values @ axes.directions, torch.from_numpy(numbers), axes, len(classes))
    accuracies = cross_validated(config, learn) if len(config.penalties) > 1 else {}
    # of equals the strongest penalty: cross_validated lists it first
    penalty = max(accuracies, key=accuracies.__getitem__) if accuracies else config.penalties[0]
    probe = learn.fitted(config, learn.nothing(), penalty)
    logits = probe.logits(test_values @ axes.directions)
    test_labels = labels_of(test, task="linear")
    # stable, so that ties fall the same way on every machine
    ranked = logits.argsort(dim=1, descending=True, stable=True)[:, :5]
    num_right = count_right(
        torch.from_numpy(classes)[ranked], torch.from_numpy(test_labels), num_classes=len(classes)
    )
    metrics, intervals = share_metrics(num_right, len(test_labels))
    return Result(
        task=config.name,
        title=config.title,
        protocol=_protocol(config, own_split=own_split),
        metrics=metrics,
        about={metric: top1_and_top5()[metric] for metric in num_right},
        lead="top1",
        finding=config.finding,
        intervals=intervals,
        seeds=(config.seed,),
        counts={
            "fit": len(learn.labels),
            "score": len(test_labels),
            "classes": len(classes),
            "features": train.values.shape[1],
        },
        details={
            "penalty": penalty,
            "cross_validated_top1": {
                f"{tried:g}": accuracy for tried, accuracy in accuracies.items()
            },
            "iterations": probe.iterations,
            "converged": probe.iterations < config.max_iterations,
        },
    )


def _standardised(
    train: Features, test: Features
) -> tuple[Float[Tensor, "train features"], Float[Tensor, "held features"]]:
    """Return both sets with each feature's mean and deviation over the fit set taken out."""
    # float64: the mean of many float32 features loses the last digits of small deviations
    values = train.values.double()
    deviation, mean = torch.std_mean(values, dim=0, correction=0)
    deviation = deviation.where(deviation > 1e-6 * mean.abs(), torch.inf)  # constant: no feature
    learn, judge = (((part.values.double() - mean) / deviation).float() for part in (train, test))
    return learn, judge


def cross_validated(config: LinearConfig, learn: _Task) -> dict[float, float]:
    """Return each penalty's mean accuracy over stratified folds, the strongest first.

    Within a fold the probe goes from each minimum to the next.
    """
    labels = learn.labels.numpy()
    rows = np.arange(len(labels))
    if len(rows) > config.max_chosen_on:
        share = 1 - config.max_chosen_on / len(rows)
        rows = stratified_split(labels, held_out=share, seed=config.seed + 1).train
    # another seed than the held-out split: folds are not to follow it
    fold_of = stratified_folds(labels[rows], folds=config.folds, seed=config.seed + 1)
    penalties = sorted(config.penalties, reverse=True)
    num_right = dict.fromkeys(penalties, 0)
    for fold in range(config.folds):
        held_out, trial = (
            torch.from_numpy(rows[part]) for part in (fold_of == fold, fold_of != fold)
        )
        # from the strongest penalty on, each minimum is a near start for the next
        probe = learn.nothing()
        for penalty in penalties:
            probe = learn.fitted(config, probe, penalty, trial)
            predicted = probe.logits(learn.coordinates[held_out]).argmax(dim=1)
            num_right[penalty] += int((predicted == learn.labels[held_out]).sum())
    num_held_out = max(int((fold_of >= 0).sum()), 1)
    return {penalty: right / num_held_out for penalty, right in num_right.items()}


def _protocol(config: LinearConfig, *, own_split: bool) -> dict[str, Any]:
    share = f"{config.held_out:.0%}"
    return {
        "classifier": "multinomial logistic regression, L-BFGS, frozen standardised features",
        "split": f"{share} of each class held out by seed" if own_split else "fit and score sets",
        "penalties": list(config.penalties),
        "penalty_chosen_by": f"{config.folds}-fold cross-validation on at most "
        f"{config.max_chosen_on:,} pictures of the fit set",
        "max_iterations": config.max_iterations,
        "tolerance": config.tolerance,
        "seed": config.seed,
    }
