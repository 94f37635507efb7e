"""A network beside itself before training and beside raw pixels, on the same pictures."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property

from torch import nn

from swav.data.eval_transform import EvalTransform
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.input import InputConfig
from swav.evals.harness.subject import Subject
from swav.evals.harness.task import Task
from swav.run_folder.result import Result


class PixelBaseline:
    """What raw pixels score, found once for all models that are shown the same pictures."""

    def __init__(self, data: EvalData, *, workers: int = 0) -> None:
        self.data = data
        self._subject = Subject(data, workers=workers)
        self._results: dict[Task, Result] = {}

    def run(self, config: Task) -> Result:
        """Return the result of one task."""
        # pixels do not change with the model: a comparison of ten runs measures them once
        if config not in self._results:
            self._results[config] = _result(config, self._subject)
        return self._results[config]


@dataclass(frozen=True)
class Comparison:
    """One subject and the baselines that stand beside it in every table."""

    subject: Subject
    untrained: nn.Module | None
    """The subject's network before training; None for raw pixels."""
    seed: int
    pixels: PixelBaseline

    def run(self, config: Task) -> Result:
        """Return the result of one task, with those baselines that the task knows beside it.

        Raises:
            ValueError: if the pictures do not allow this task.
        """
        subject = self._with_input(config.input)
        is_network = subject.backbone is not None
        own = _result(config, subject) if is_network else self.pixels.run(config)
        result = replace(own, seeds=(self.seed,))
        if subject.transform is not None:
            details = {**result.details, "input": asdict(subject.transform)}
            result = replace(result, details=details)
        if "random" in config.baselines and self.untrained is not None:
            untrained = self._with_input(config.input, random=True)
            # an untrained network is its own baseline and is not measured twice
            is_same = untrained.backbone is subject.backbone
            random = own if is_same else _result(config, untrained)
            result = result.with_baseline("random", random)
        if "pixels" in config.baselines:
            result = result.with_baseline("pixels", self.pixels.run(config))
        return result

    @cached_property
    def _subjects(self) -> dict[tuple[EvalTransform | None, bool], Subject]:
        """Subjects by what they are shown, so that tasks with one input share features."""
        return {}

    def _with_input(self, config: InputConfig, *, random: bool = False) -> Subject:
        """Return the subject, or its network before training, shown what a task asks for."""
        transform = self.subject.transform and config.applied(self.subject.transform)
        subject = replace(self.subject, transform=transform)
        if random:
            subject = replace(subject, backbone=self.untrained, clusters=None)
        return self._subjects.setdefault((transform, random), subject)


def _result(config: Task, subject: Subject) -> Result:
    result = config.evaluate(subject)
    assert result.about.keys() == result.metrics.keys(), f"{config.name}: say what each metric is"
    sets = {"fit_on": subject.data.fit_on, "score_on": subject.data.score_on}
    return replace(result, protocol={**result.protocol, **sets})
