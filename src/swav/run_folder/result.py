"""The metrics of an evaluation, what they are, and everything needed to believe them."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from swav.run_folder.atomic import write_atomically

PACKAGES = (
    *("swav", "torch", "torchvision", "timm", "torchmetrics", "pycocotools", "scikit-learn"),
    *("numpy", "scipy", "numba", "pillow", "opencv-python-headless"),
)


@cache
def installed_versions() -> Mapping[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number is: its title, how it is shown, and which way is better."""

    title: str
    is_share: bool = False
    """Whether it is shown in percent: it counts how many of the pictures are right, say."""
    higher_is_better: bool | None = True
    """None where neither way is."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Named numbers of one task, how they were made and how sure they are."""

    task: str
    title: str = ""
    """Of the task, for tables and pages."""
    protocol: Mapping[str, Any]
    """Every choice that the numbers depend on, plain JSON values."""
    metrics: Mapping[str, float]
    about: Mapping[str, Metric] = field(default_factory=dict)
    """What each of the metrics is."""
    lead: str = ""
    """Metric that stands for the task, fixed so that it is not the luckiest; empty: the first."""
    finding: str = ""
    """What follows the value of the leading metric in a sentence, if it can be said in one."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 % over the pictures that were scored: Wilson's of shares, the usual one of means,
    a jackknife's of what only a whole set has."""
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of other features under the same protocol: ``start`` (what the run started from,
    frozen), ``scratch`` (a run from scratch, of the demo), ``random`` (untrained), ``pixels``,
    ``patch-kmeans``."""
    seeds: tuple[int, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    """What this one run chose or met, which a baseline need not share."""
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    name: str = ""
    """Of the published protocol, such as places205, or of the user; empty for the task itself."""
    model: str = ""
    """What was evaluated: the name of the run folder, of the network or of the file."""

    @property
    def label(self) -> str:
        """What tables and files call this result."""
        return self.name or self.task

    def with_baseline(self, name: str, baseline: "Result") -> "Result":
        """Return this result with the metrics of ``baseline`` beside it.

        Those that ``details`` names as ``without_baseline`` cannot be compared and are left out.

        Raises:
            ValueError: if the baseline was not made under the same protocol.
        """
        if (baseline.task, baseline.protocol) != (self.task, self.protocol):
            raise ValueError(
                f"baseline {name!r} of {baseline.task} was made under {dict(baseline.protocol)}, "
                f"this {self.task} under {dict(self.protocol)}: evaluate both the same way"
            )
        alone = self.details.get("without_baseline", ())
        metrics = {key: value for key, value in baseline.metrics.items() if key not in alone}
        return replace(self, baselines={**self.baselines, name: metrics})

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``eval/NAME.json`` holds."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        # without NaN, which JSON does not have (RFC 8259)
        write_atomically(path, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")
