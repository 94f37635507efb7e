"""A linear probe: multinomial logistic regression on frozen features.

The network is not touched and no augmentation is drawn, so the number depends on the features
alone. The penalty is chosen by cross-validation on the pictures it learns from, never on those
it is scored on.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from swav.evals.features import Features
from swav.evals.result import Result
from swav.evals.splits import (
    check_comparable,
    labels_of,
    stratified_folds,
    stratified_split,
    take,
)
from swav.evals.subject import Subject
from swav.ops.metrics import wilson_interval


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Accuracy of multinomial logistic regression on standardised, frozen features."""

    name: ClassVar[str] = "linear"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ("random", "pixels")
    penalties: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
    """Weights of half the squared norm against the mean loss of a picture."""
    folds: int = 3
    """Of the cross-validation that chooses the penalty."""
    max_chosen_on: int = 10_000
    """Pictures of the cross-validation, drawn by seed; the probe itself learns from all."""
    held_out: float = 0.2
    """Share of each class that is scored where there is no score set."""
    max_iterations: int = 500
    tolerance: float = 1e-3
    """Largest gradient element at which the solver stops: a tenth of it moved top-1 by at most 3
    of 382 emoji, at two to three times the iterations."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError(f"penalties {self.penalties} must be numbers above 0")
        if self.folds < 2:
            raise ValueError(f"folds {self.folds} must be 2 or more")
        if self.max_chosen_on < 1:
            raise ValueError(f"max_chosen_on {self.max_chosen_on} must be 1 or more")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out {self.held_out} must be between 0 and 1")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on a subject's features."""
        return run(self, subject.fit, subject.score)


class _Rows(NamedTuple):
    values: Float32[np.ndarray, "images features"]
    labels: Int64[np.ndarray, " images"]


def run(config: LinearConfig, fit: Features, score: Features | None = None) -> Result:
    """Return top-1 and top-5 accuracy; without ``score`` a stratified share is held out.

    Raises:
        ValueError: if labels are missing, classes differ, or a set is too small to split.
    """
    own_split = score is None
    if score is None:
        labels = labels_of(fit, task="linear")
        split = stratified_split(labels, held_out=config.held_out, seed=config.seed)
        fit, score = take(fit, split.fit), take(fit, split.held_out)
    check_comparable(fit, score, task="linear")
    learn, judge = _standardised(fit, score)
    shares = cross_validated(config, learn) if len(config.penalties) > 1 else {}
    penalty = max(shares, key=lambda each: shares[each]) if shares else config.penalties[0]
    probe = _new_probe(config)
    _fit(probe, learn, penalty)
    num_right = _num_right(probe, judge)
    return Result(
        task="linear",
        protocol=_protocol(config, own_split=own_split),
        metrics={metric: right / len(judge.labels) for metric, right in num_right.items()},
        intervals={
            metric: wilson_interval(right, len(judge.labels)) for metric, right in num_right.items()
        },
        seeds=(config.seed,),
        counts={
            "fit": len(learn.labels),
            "score": len(judge.labels),
            "classes": len(probe.classes_),
            "features": learn.values.shape[1],
        },
        details={
            "penalty": penalty,
            "cross_validated_top1": {f"{each:g}": share for each, share in shares.items()},
            "iterations": int(probe.n_iter_[0]),
            "converged": bool(probe.n_iter_[0] < config.max_iterations),
        },
    )


def _standardised(fit: Features, score: Features) -> tuple[_Rows, _Rows]:
    """Return both sets with each feature's mean and deviation over the fit set taken out."""
    values = fit.values.double()
    deviation, mean = torch.std_mean(values, dim=0, correction=0)
    deviation = deviation.where(deviation > 1e-6 * mean.abs(), torch.inf)  # constant: no feature
    learn, judge = (
        _Rows(
            ((part.values.double() - mean) / deviation).float().numpy(),
            labels_of(part, task="linear"),
        )
        for part in (fit, score)
    )
    if len(np.unique(learn.labels)) < 2:
        raise ValueError(f"linear needs two classes or more to tell apart, not {fit.classes}")
    return learn, judge


def _new_probe(config: LinearConfig) -> LogisticRegression:
    return LogisticRegression(
        solver="lbfgs",
        warm_start=True,
        tol=config.tolerance,
        max_iter=config.max_iterations,
    )


def cross_validated(config: LinearConfig, learn: _Rows) -> dict[float, float]:
    """Return each penalty's mean accuracy over stratified folds, the strongest first.

    Within a fold the probe goes from each solution to the next.
    """
    rows = np.arange(len(learn.labels))
    if len(rows) > config.max_chosen_on:
        share = 1 - config.max_chosen_on / len(rows)
        rows = stratified_split(learn.labels, held_out=share, seed=config.seed + 1).fit
    fold_of = stratified_folds(learn.labels[rows], folds=config.folds, seed=config.seed + 1)
    penalties = sorted(config.penalties, reverse=True)
    num_right = dict.fromkeys(penalties, 0.0)
    for fold in range(config.folds):
        held_out, trial = rows[fold_of == fold], rows[fold_of != fold]
        if not len(held_out):
            continue
        probe = _new_probe(config)
        for penalty in penalties:
            _fit(probe, _Rows(learn.values[trial], learn.labels[trial]), penalty)
            right = probe.predict(learn.values[held_out]) == learn.labels[held_out]
            num_right[penalty] += float(right.sum())
    num_held_out = max(int((fold_of >= 0).sum()), 1)
    return {penalty: right / num_held_out for penalty, right in num_right.items()}


def _fit(probe: LogisticRegression, rows: _Rows, penalty: float) -> None:
    """Minimise mean cross-entropy + penalty / 2 x squared norm from where the probe stands."""
    probe.set_params(C=1 / (penalty * len(rows.labels)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result says `converged`
        probe.fit(*rows)


def _num_right(probe: LogisticRegression, judge: _Rows) -> dict[str, int]:
    """Return how many pictures have their class among the one and the five most probable."""
    probabilities: Float[np.ndarray, "images classes"] = probe.predict_proba(judge.values)
    ranked: Sequence[Any] = probe.classes_[np.argsort(-probabilities, axis=1, kind="stable")[:, :5]]
    hits = np.asarray(ranked) == judge.labels[:, None]
    num_right = {"top1": int(hits[:, 0].sum())}
    if len(probe.classes_) > 5:
        num_right["top5"] = int(hits.any(axis=1).sum())
    return num_right


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
    }
