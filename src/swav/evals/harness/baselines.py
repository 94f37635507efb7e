"""A network beside itself before training and beside raw pixels, on the same pictures."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property

from torch import nn

from swav.evals import EvalConfig, Result
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.subject import Subject


class PixelBaseline:
    """What raw pixels score, found once for all models that are shown the same pictures."""

    def __init__(self, data: EvalData) -> None:
        self.data = data
        self._subject = Subject(data)
        self._found: dict[EvalConfig, Result] = {}

    def run(self, config: EvalConfig) -> Result:
        """Return the result of one task."""
        if config not in self._found:
            self._found[config] = _result(config, self._subject)
        return self._found[config]


@dataclass(frozen=True)
class Comparison:
    """One subject and the baselines that stand beside it in every table."""

    subject: Subject
    untrained: nn.Module | None
    """The subject's network before training; None for raw pixels."""
    seed: int
    pixels: PixelBaseline

    def run(self, config: EvalConfig) -> Result:
        """Return the result of one task, with those baselines that the task knows beside it.

        Raises:
            ValueError: if the pictures do not allow this task.
        """
        is_network = self.subject.backbone is not None
        found = _result(config, self.subject) if is_network else self.pixels.run(config)
        result = replace(found, seeds=(self.seed,))
        if self.subject.transform is not None:
            shown = asdict(self.subject.transform)
            result = replace(result, details={**result.details, "input": shown})
        if "random" in config.baselines and self.untrained is not None:
            is_untrained = self.untrained is self.subject.backbone
            random = found if is_untrained else _result(config, self._random)
            result = result.with_baseline("random", random)
        if "pixels" in config.baselines:
            result = result.with_baseline("pixels", self.pixels.run(config))
        return result

    @cached_property
    def _random(self) -> Subject:
        subject = self.subject
        return Subject(subject.data, self.untrained, subject.transform, cache=subject.cache)


def _result(config: EvalConfig, subject: Subject) -> Result:
    result = config.evaluate(subject)
    assert result.about.keys() == result.metrics.keys(), f"{config.name}: say what each metric is"
    sets = {"fit_on": subject.data.fit_on, "score_on": subject.data.score_on}
    return replace(result, protocol={**result.protocol, **sets})
