"""A linear probe at the end of every stage: where in the network the labels are easiest to read.

The literature's picture (Goyal et al., 2019, arXiv 1905.01235): what a clustering method learns
gets better up to the last stage, what a pretext task learns is best a stage or two before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.pictures import Pictures
from swav.evals import linear
from swav.evals.harness.accuracy import top_accuracy
from swav.evals.harness.extract import Features, Rows, encode_rows, evaluating, features_of
from swav.evals.harness.input import AS_THE_MODEL, InputConfig
from swav.evals.harness.subject import Subject
from swav.evals.linear import LinearConfig
from swav.run_folder.result import Result

Maps = list[Float[Tensor, "batch _ _ _"]]


@runtime_checkable
class HasStages(Protocol):
    """A network that gives the feature maps at the end of its stages, as those of timm do."""

    def forward_intermediates(
        self, x: Tensor, *, intermediates_only: bool, output_fmt: str
    ) -> list[Tensor]:
        """Return a map (batch, channels, height, width) for each stage."""


@dataclass(frozen=True, kw_only=True)
class LayersConfig:
    """Accuracy of a linear probe at the end of every stage of the network."""

    name: ClassVar[str] = "layers"
    title: ClassVar[str] = "Layer by layer"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ("start", "random", "pixels")
    input: ClassVar[InputConfig] = AS_THE_MODEL
    max_features: int = 1024
    """A map is averaged over a grid of cells, as fine as gives so many numbers at most; one cell
    where a map has more channels than that."""
    probe: LinearConfig = field(default_factory=lambda: LinearConfig(penalties=(1e-1, 1e-2, 1e-3)))

    def __post_init__(self) -> None:
        if self.max_features < 1:
            raise ValueError(f"max_features {self.max_features} must be 1 or more")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run``; raw pixels, which have no stages, get ``top1`` alone."""
        # the output's column still has its baseline
        if subject.backbone is None or subject.transform is None:
            return run(self, [], [], subject.train_features, subject.test_features)
        test = subject.data.test
        return run(
            self,
            self._stages(subject, subject.data.train),
            None if test is None else self._stages(subject, test),
            subject.train_features,
            subject.test_features,
        )

    def _stages(self, subject: Subject, pictures: Pictures) -> list[Features]:
        network, transform = subject.backbone, subject.transform
        assert network is not None
        assert transform is not None
        values, kept = subject.cache(
            subject,
            pictures,
            f"stages of {self.max_features} features",
            lambda: _stage_rows(
                network,
                pictures,
                transform,
                max_features=self.max_features,
                workers=subject.workers,
            ),
        )
        return [features_of(stage, pictures, kept) for stage in values]


def run(
    config: LayersConfig,
    train_stages: Sequence[Features],
    test_stages: Sequence[Features] | None,
    train: Features,
    test: Features | None = None,
) -> Result:
    """Return the accuracy of each stage, ``stage1`` first, and of the output as ``top1``.

    Raises:
        ValueError: if labels are missing, classes differ, or a set is too small to split.
    """
    output = linear.run(config.probe, train, test)
    tests = test_stages if test_stages is not None else [None] * len(train_stages)
    stages = {
        f"stage{number}": linear.run(config.probe, *sets)
        for number, sets in enumerate(zip(train_stages, tests, strict=True), start=1)
    }
    probes = {**stages, "top1": output}
    titles = {f"stage{number}": f" after stage {number}" for number in range(1, len(stages) + 1)}
    return Result(
        task=config.name,
        title=config.title,
        protocol={**output.protocol, "maps": f"averaged to {config.max_features} numbers or fewer"},
        metrics={name: result.metrics["top1"] for name, result in probes.items()},
        about={name: top_accuracy(1, titles.get(name, "")) for name in probes},
        lead="top1",
        intervals={name: result.intervals["top1"] for name, result in probes.items()},
        seeds=output.seeds,
        counts={key: number for key, number in output.counts.items() if key != "features"},
        details={
            "features": {name: result.counts["features"] for name, result in probes.items()},
            "penalty": {name: result.details["penalty"] for name, result in probes.items()},
        },
    )


def stage_features(
    network: nn.Module, pictures: Pictures, transform: EvalTransform, *, max_features: int
) -> list[Features]:
    """Return the features of every readable picture at the end of each stage, in one pass.

    Raises:
        ValueError: if the network does not give its stages.
    """
    values, kept = _stage_rows(network, pictures, transform, max_features=max_features)
    return [features_of(stage, pictures, kept) for stage in values]


def _stage_rows(
    network: nn.Module,
    pictures: Pictures,
    transform: EvalTransform,
    *,
    max_features: int,
    workers: int = 0,
) -> Rows:
    if not isinstance(network, HasStages):
        raise ValueError(
            f"layers needs the stages of the network, and {type(network).__name__} does not give "
            "them: use a timm backbone, or write forward_intermediates as timm's models have it"
        )
    device = next(network.parameters()).device

    @torch.no_grad()
    def encode(batch: Tensor) -> list[Tensor]:
        with evaluating(network):
            maps = network.forward_intermediates(
                transform.normalise(batch.to(device)), intermediates_only=True, output_fmt="NCHW"
            )
        return [pooled(stage, max_features).cpu() for stage in maps]

    return encode_rows(transform.fit_all, encode, pictures, workers=workers)


def pooled(
    stage: Float[Tensor, "batch channels height width"], max_features: int
) -> Float[Tensor, "batch _"]:
    """Return a map averaged over the finest square grid that gives at most ``max_features``."""
    channels, height, width = stage.shape[1:]
    # averaged maps as in Goyal et al. (2019): about as many numbers from every stage
    cells = int((max_features / channels) ** 0.5)
    grid = max(1, min(cells, height)), max(1, min(cells, width))
    return F.adaptive_avg_pool2d(stage.float(), grid).flatten(1)
