"""How well features serve on another labelled set (SwAV, sec. 4.2 and appendix A.5).

With one class a picture: a linear layer on the frozen network, and fine-tuning of all of it.
With several (VOC 2007): one linear support vector machine a class, scored by mean average
precision; difficult objects alone make a picture neither right nor wrong.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC
from torch import nn

from swav.config import check_ranges
from swav.data.eval_transform import EvalTransform
from swav.data.sources.annotated import Annotated
from swav.data.sources.pictures import Pictures
from swav.evals.harness.accuracy import top1_and_top5
from swav.evals.harness.extract import Features
from swav.evals.harness.finetune import (
    FineTuneConfig,
    finetune,
    labelled_parts,
    network_of,
    num_classes,
    num_right,
)
from swav.evals.harness.input import AS_THE_MODEL, PUBLISHED, InputConfig
from swav.evals.harness.splits import check_held_out
from swav.evals.harness.subject import Subject
from swav.ops.average_precision import average_precision, eleven_point_precision
from swav.ops.metrics import jackknife_intervals, wilson_interval
from swav.run_folder.result import Metric, Result

FOLDS = 3
WAYS = {"linear": "linear layer on the frozen network", "finetune": "fine-tuned"}
SVM_METRICS = {
    "map": Metric(title="mean average precision"),
    "map_11point": Metric(title="mean average precision, eleven points"),
}


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Accuracy on another labelled set, linear and fine-tuned; with several labels, SVMs."""

    name: ClassVar[str] = "transfer"
    title: ClassVar[str] = "Transfer"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = (
        "start",
        "random",
    )
    ways: tuple[Literal["linear", "finetune"], ...] = ("linear", "finetune")
    """With one class a picture: which of the two trainings are run."""
    linear: FineTuneConfig = field(
        default_factory=lambda: FineTuneConfig(
            trunk_rate=0.0, head_rate=0.1, epochs=10, batch_size=64, min_steps=100
        )
    )
    finetune: FineTuneConfig = field(
        default_factory=lambda: FineTuneConfig(
            trunk_rate=0.05, head_rate=0.1, epochs=10, batch_size=64, min_steps=100
        )
    )
    costs: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    """Of the support vector machines; each class takes the best of a cross-validation."""
    held_out: float = 0.2
    """Share of each class that is scored when there is no score set."""
    input: InputConfig = AS_THE_MODEL
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ways:
            raise ValueError("ways () is empty: give linear, finetune or both")
        if self.linear.trunk_rate != 0:
            raise ValueError(
                f"linear.trunk_rate {self.linear.trunk_rate} must be 0: the network is frozen there"
            )
        if not self.costs or min(self.costs) <= 0:
            raise ValueError(f"costs {self.costs} must be numbers above 0")
        check_held_out(self.held_out)
        check_ranges(self, costs="(0, inf)", seed="[0, 9e18]")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` or, where pictures have several labels, ``run_svm``."""
        backbone, transform = network_of(subject, task="transfer")
        if subject.data.boxes is None:
            sets = subject.data.train, subject.data.test
            return run(self, backbone, transform, *sets, workers=subject.workers)
        assert subject.test_features is not None  # boxes come in two sets
        features = (subject.train_features, subject.test_features)
        return run_svm(self, *map(several_labels, features, subject.data.boxes))


def places205() -> TransferConfig:
    """Return SwAV's linear protocol for Places205: 28 epochs, rate / 10 three times."""
    return TransferConfig(ways=("linear",), linear=_published(epochs=28), input=PUBLISHED)


def inat18() -> TransferConfig:
    """Return SwAV's linear protocol for iNaturalist 2018: 84 epochs, rate / 10 three times."""
    return TransferConfig(ways=("linear",), linear=_published(epochs=84), input=PUBLISHED)


def _published(*, epochs: int) -> FineTuneConfig:
    """The text says how often the rate falls, not when: here after each quarter."""
    return FineTuneConfig(
        trunk_rate=0.0,
        head_rate=0.01,
        epochs=epochs,
        batch_size=256,
        drops=(0.25, 0.5, 0.75),
        drop_factor=0.1,
        weight_decay=1e-4,
    )


def run(
    config: TransferConfig,
    backbone: nn.Module,
    transform: EvalTransform,
    train: Pictures,
    test: Pictures | None = None,
    *,
    workers: int = 0,
) -> Result:
    """Return ``linear_top1`` and ``finetune_top1`` (and top-5) on pictures of one class each.

    Raises:
        ValueError: if labels are missing or classes differ.
    """
    train, test, split = labelled_parts(
        train, test, task="transfer", held_out=config.held_out, seed=config.seed
    )
    schedules = {"linear": config.linear, "finetune": config.finetune}
    metrics: dict[str, float] = {}
    about: dict[str, Metric] = {}
    intervals: dict[str, tuple[float, float]] = {}
    classes = num_classes(train, test)
    for way in config.ways:
        trained = finetune(
            schedules[way],
            backbone,
            train,
            transform,
            num_classes=classes,
            seed=config.seed,
            workers=workers,
        )
        right, num_scored = num_right(trained, test, transform, workers=workers)
        for metric, hits in right.items():
            metrics[f"{way}_{metric}"] = hits / num_scored
            about[f"{way}_{metric}"] = top1_and_top5(f", {WAYS[way]}")[metric]
            intervals[f"{way}_{metric}"] = wilson_interval(hits, num_scored)
    return Result(
        task=config.name,
        title=config.title,
        protocol={"split": split, "seed": config.seed}
        | {way: schedules[way].protocol() for way in config.ways},
        metrics=metrics,
        about=about,
        intervals=intervals,
        seeds=(config.seed,),
        counts={"fit": len(train), "score": len(test), "classes": classes},
    )


class SeveralLabels(NamedTuple):
    """Features of pictures that may show several classes."""

    values: Float32[np.ndarray, "images features"]
    shown: Int64[np.ndarray, "images classes"]
    """1 shown, -1 not shown, 0 shown by difficult objects only, which counts for nothing."""
    classes: Sequence[str]


def several_labels(features: Features, annotated: Annotated) -> SeveralLabels:
    """Return features with what the boxes say is in each picture."""
    row_of = {name: row for row, name in enumerate(annotated.pictures.names)}
    shown = np.full((len(features.names), len(annotated.classes)), -1, dtype=np.int64)
    for row, name in enumerate(features.names):
        objects = annotated.objects[row_of[name]]
        shown[row, objects.labels] = 0
        shown[row, objects.labels[~objects.ignored]] = 1
    return SeveralLabels(features.values.numpy(), shown, annotated.classes)


def run_svm(config: TransferConfig, train: SeveralLabels, test: SeveralLabels) -> Result:
    """Return ``map`` and ``map_11point`` over the classes, of one linear SVM a class.

    Raises:
        ValueError: if there is no class that both parts show and lack often enough.
    """
    # unit length, so that one range of costs suits the features of every network
    train_values, test_values = (
        normalize(part.values.astype(np.float64)) for part in (train, test)
    )
    scores: dict[str, Float64[np.ndarray, " test"]] = {}
    costs: dict[str, float] = {}
    for column, name in enumerate(train.classes):
        known = train.shown[:, column] != 0
        is_positive = train.shown[known, column] > 0
        is_asked = (test.shown[:, column] > 0).any()
        if min(is_positive.sum(), (~is_positive).sum()) < FOLDS or not is_asked:
            continue
        # VOC's rule: pictures that show a class only as difficult count neither way
        costs[name] = _choose_cost(config, train_values[known], is_positive)
        scores[name] = _margins(config, costs[name], train_values[known], is_positive, test_values)

    def precision(rows: Int64[np.ndarray, " kept"]) -> tuple[dict[str, float], dict[str, float]]:
        area, eleven = {}, {}
        for column, name in enumerate(train.classes):
            asked = rows[test.shown[rows, column] != 0]
            hits = test.shown[asked, column] > 0
            if name in scores and hits.any():
                area[name] = average_precision(scores[name][asked], hits)
                eleven[name] = eleven_point_precision(scores[name][asked], hits)
        of_classes = {"map": area, "map_11point": eleven} if area else {}
        means = {name: float(np.mean([*values.values()])) for name, values in of_classes.items()}
        return means, area

    if not scores:
        raise ValueError(
            f"transfer: none of the classes {tuple(train.classes)[:5]} is shown and missing in "
            f"{FOLDS} pictures to fit on and shown in one to score: more pictures are needed"
        )
    metrics, of_classes = precision(np.arange(len(test_values)))
    return Result(
        task=config.name,
        title=config.title,
        protocol=_svm_protocol(config, sorted(set(train.classes) - set(scores))),
        metrics=metrics,
        about=SVM_METRICS,
        intervals=jackknife_intervals(metrics, lambda rows: precision(rows)[0], len(test_values)),
        seeds=(config.seed,),
        counts={
            "fit": len(train_values),
            "score": len(test_values),
            "classes": len(scores),
            "features": train_values.shape[1],
        },
        details={"average_precision": of_classes, "costs": costs},
    )


def _choose_cost(
    config: TransferConfig,
    values: Float64[np.ndarray, "images features"],
    is_positive: Bool[np.ndarray, " images"],
) -> float:
    """Return the cost with the best mean average precision over the folds of the fit set."""
    # folds of the fit set choose the cost, as in Goyal et al. (2019), never the scored pictures
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=config.seed)
    means = {cost: 0.0 for cost in sorted(config.costs)}
    for rows, held in folds.split(values, is_positive):
        for cost in means:
            scores = _margins(config, cost, values[rows], is_positive[rows], values[held])
            means[cost] += average_precision(scores, is_positive[held]) / FOLDS
    return max(means, key=lambda cost: means[cost])


def _margins(
    config: TransferConfig,
    cost: float,
    values: Float64[np.ndarray, "train features"],
    is_positive: Bool[np.ndarray, " train"],
    test_values: Float64[np.ndarray, "held features"],
) -> Float64[np.ndarray, " held"]:
    """Return the scores that LIBLINEAR's machine with squared hinge loss gives ``test_values``."""
    # squared hinge: LIBLINEAR's default, which appendix A.5 names
    machine = LinearSVC(C=cost, dual="auto", max_iter=10000, random_state=config.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # far from any good cost
        machine.fit(values, is_positive)
    scores: Float64[np.ndarray, " held"] = machine.decision_function(test_values)
    return scores


def _svm_protocol(config: TransferConfig, left_out: Sequence[str]) -> dict[str, Any]:
    return {
        "classifier": "a linear SVM a class (LIBLINEAR, squared hinge), L2-normalised features",
        "costs": list(config.costs),
        "cost_chosen_on": f"mean average precision of {FOLDS} stratified folds of the fit set",
        "difficult": "pictures with difficult objects of a class alone are left out of it",
        "map": "area under precision and recall; map_11point: VOC 2007's eleven points",
        "classes_left_out": list(left_out),
        "seed": config.seed,
    }
