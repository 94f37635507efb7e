"""What the driver of evaluations needs of a task."""

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from swav.config import to_dict
from swav.evals.harness.input import InputConfig
from swav.evals.harness.subject import Subject
from swav.run_folder.result import Result


@runtime_checkable
class Task(Hashable, Protocol):
    """The configuration of an evaluation."""

    name: ClassVar[str]
    baselines: ClassVar[tuple[str, ...]]
    """Of ``start``, ``random``, ``pixels`` and ``patch-kmeans`` those that can stand beside it."""

    @property
    def input(self) -> InputConfig:
        """How pictures become the input of the network."""

    def evaluate(self, subject: Subject) -> Result:
        """Return the result; raises a ValueError if the pictures do not allow it."""


def settings_of(config: Any, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options that a result depends on, as plain JSON values."""
    settings = to_dict(config)
    return {name: value for name, value in settings.items() if name not in ("name", *without)}
