"""A network beside itself before training and beside what needs none, on the same pictures."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial

from torch import nn

from swav.data.eval_transform import EvalTransform
from swav.evals.harness.baseline_cache import ResultCache, compute_result
from swav.evals.harness.cache import weights_digest
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.extract import pixel_encoder
from swav.evals.harness.input import InputConfig
from swav.evals.harness.patch_kmeans import patch_kmeans_encoder
from swav.evals.harness.subject import FitEncoder, Shown, Subject
from swav.evals.harness.task import Task
from swav.run_folder.result import Result

logger = logging.getLogger(__name__)

WITHOUT_NETWORK: Mapping[str, FitEncoder] = {
    "pixels": pixel_encoder,
    "patch-kmeans": patch_kmeans_encoder,
}
"""Baselines that need no network, by their names in results."""
PATCH_KMEANS_UP_TO = 100_000
"""Pictures; of more it takes minutes, and is measured if it is named as a model."""


class Baselines:
    """What features without a network score, found once for all models shown the same pictures."""

    def __init__(
        self, data: EvalData, *, workers: int = 0, kept: ResultCache = compute_result
    ) -> None:
        self.data = data
        self.kept = kept
        self._workers = workers
        self._subjects: dict[FitEncoder, Subject] = {}
        self._results: dict[tuple[FitEncoder, Task], Result] = {}

    def run(self, config: Task, encoder_of: FitEncoder) -> Result:
        """Return the result of one task."""
        # they do not change with the model: a comparison of ten runs measures them once
        subject = self._subjects.setdefault(
            encoder_of, Subject(self.data, encoder_of=encoder_of, workers=self._workers)
        )
        key = (encoder_of, config)
        if key not in self._results:
            self._results[key] = _result(config, subject)
        return self._results[key]

    def beside(self, config: Task) -> dict[str, Result]:
        """Return the results that stand beside those of a network, by the names of baselines."""
        return {
            name: self.kept(
                name, config, Subject(self.data), partial(self.run, config, WITHOUT_NETWORK[name])
            )
            for name in config.baselines
            if name in WITHOUT_NETWORK and (name != "patch-kmeans" or self._are_few)
        }

    @cached_property
    def _are_few(self) -> bool:
        number = len(self.data.train) + (0 if self.data.test is None else len(self.data.test))
        if number > PATCH_KMEANS_UP_TO:
            logger.warning(
                "patch-kmeans is left out beside %s pictures, above %s: name it as a model",
                f"{number:,}",
                f"{PATCH_KMEANS_UP_TO:,}",
            )
        return number <= PATCH_KMEANS_UP_TO


@dataclass(frozen=True)
class Comparison:
    """One subject and the baselines that stand beside it in every table."""

    subject: Subject
    untrained: nn.Module | None
    """The subject's network before training; None without a network."""
    seed: int
    baselines: Baselines
    start: Shown | None = None
    """What the training of the subject's network started from; None if that was random."""

    def run(self, config: Task) -> Result:
        """Return the result of one task, with those baselines that the task knows beside it.

        Raises:
            ValueError: if the pictures do not allow this task.
        """
        subject = self._with_input(config.input)
        is_network = subject.backbone is not None
        own = (
            _result(config, subject)
            if is_network
            else self.baselines.run(config, subject.encoder_of)
        )
        result = replace(own, seeds=(self.seed,))
        if subject.transform is not None:
            details = {**result.details, "input": asdict(subject.transform)}
            result = replace(result, details=details)
        for name in (name for name in self._networks if name in config.baselines):
            beside = self._with_input(config.input, name)
            # an untrained network is its own baseline and is not measured twice
            is_same = beside.backbone is subject.backbone and beside.transform == subject.transform
            compute = partial(_result, config, beside)
            kept = own if is_same else self.baselines.kept(name, config, beside, compute)
            result = result.with_baseline(name, kept)
        for name, baseline in self.baselines.beside(config).items():
            result = result.with_baseline(name, baseline)
        return result

    @cached_property
    def _networks(self) -> dict[str, Shown]:
        """Networks that stand beside the subject's, by the names of baselines."""
        own, transform = self.subject.backbone, self.subject.transform
        if own is None or transform is None:
            return {}
        networks = {}
        if self.start is not None:
            is_own = weights_digest(self.start.network) == weights_digest(own)
            networks["start"] = self.start._replace(network=own) if is_own else self.start
        if self.untrained is not None:
            networks["random"] = Shown(self.untrained, transform)
        return networks

    @cached_property
    def _subjects(self) -> dict[tuple[EvalTransform | None, str], Subject]:
        """Subjects by what they are shown, so that tasks with one input share features."""
        return {}

    def _with_input(self, config: InputConfig, beside: str = "") -> Subject:
        """Return the subject, or the network beside it of a name, shown what a task asks for."""
        subject = self.subject
        if beside:
            network, transform = self._networks[beside]
            subject = replace(subject, backbone=network, transform=transform, clusters=None)
        if subject.transform is not None:
            subject = replace(subject, transform=config.applied(subject.transform))
        return self._subjects.setdefault((subject.transform, beside), subject)


def _result(config: Task, subject: Subject) -> Result:
    result = config.evaluate(subject)
    assert result.about.keys() == result.metrics.keys(), f"{config.name}: say what each metric is"
    sets = {"fit_on": subject.data.fit_on, "score_on": subject.data.score_on}
    return replace(result, protocol={**result.protocol, **sets})
