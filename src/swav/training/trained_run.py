"""A run folder opened again: its settings and the network that came out of it."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import swav.config
from swav.data.eval_transform import EvalTransform
from swav.data.sources.pictures import Pictures
from swav.engine.objective import Objective, TrainingFacts
from swav.evals import Features, extract
from swav.evals.harness.subject import Clusters
from swav.nn.prototypes import Prototypes
from swav.recipes.train_config import TrainConfig
from swav.run_folder.checkpoint import newest_checkpoint
from swav.run_folder.state import restore_weights


@dataclass(frozen=True)
class Run:
    """A trained network with everything needed to use it on other pictures."""

    folder: Path
    config: TrainConfig
    objective: Objective
    num_images: int
    """Pictures it was trained on."""
    allow_factory: Collection[str] = ()
    """Factories that may build its network."""

    @property
    def backbone(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return self.objective.encoder

    @property
    def transform(self) -> EvalTransform:
        """What turns pictures into the network's input."""
        return transform_of(self.config)

    def features(self, pictures: Pictures) -> Features:
        """Return the pooled features of every readable picture, not normalised."""
        return extract(self.backbone, pictures, self.transform)

    def probabilities(
        self, features: Float[Tensor, "images features"]
    ) -> Float[Tensor, "images prototypes"] | None:
        """Return the probability of each of the method's clusters; None if it has none."""
        return clusters_of(self.objective, features)

    def untrained(self) -> nn.Module:
        """Return the same network with random weights."""
        return untrained_network(
            self.config, num_images=self.num_images, allow_factory=self.allow_factory
        )


def load(folder: str | Path, *, allow_factory: Collection[str] = ()) -> Run:
    """Open a run folder.

    Args:
        folder: the ``out`` of a training.
        allow_factory: ``package.module:function`` that its config may name as the backbone.

    Raises:
        ValueError: if the folder holds no run, or one that has not come to a checkpoint, or it
            names a factory that is not allowed.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").exists():
        raise ValueError(
            f"{folder} is no run folder (no config.yaml): give the --out of a training"
        )
    config = swav.config.load(TrainConfig, folder / "config.yaml")
    num_images = int(read_record(folder)["num_images"])
    checkpoint = newest_checkpoint(folder, repair=False)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet: let the training save once")
    objective = build_objective(
        _without_weights(config), num_images=num_images, allow_factory=allow_factory
    )
    restore_weights(checkpoint.tensors, objective)
    return Run(folder, config, objective.eval(), num_images, allow_factory)


def build_objective(
    config: TrainConfig,
    *,
    num_images: int,
    weights: Mapping[str, Tensor] | None = None,
    allow_factory: Collection[str] = (),
) -> Objective:
    """Return the method around a backbone, fresh (the same for the same seed) or with weights."""
    torch.manual_seed(config.seed)
    backbone = config.backbone.build(config.data.channels, allow_factory=allow_factory)
    if weights is not None:
        backbone.load_state_dict(weights)
    facts = TrainingFacts(
        feature_dim=int(backbone.num_features),  # type: ignore[arg-type]
        num_images=num_images,
        global_batch=config.optim.batch_size,
    )
    return config.method.build(backbone, facts)


def untrained_network(
    config: TrainConfig, *, num_images: int, allow_factory: Collection[str] = ()
) -> nn.Module:
    """Return the network of a run with random weights, also where it began with published ones."""
    return build_objective(
        _without_weights(config), num_images=num_images, allow_factory=allow_factory
    ).encoder


def _without_weights(config: TrainConfig) -> TrainConfig:
    return replace(config, backbone=replace(config.backbone, pretrained=False))


def transform_of(config: TrainConfig) -> EvalTransform:
    """Return the evaluation transform of a training: target size, its mean and deviation."""
    return EvalTransform(
        input_size=(config.data.channels, *config.views.groups[0].size),
        mean=config.views.mean,
        std=config.views.std,
    )


@torch.no_grad()
def clusters_of(
    objective: Objective, features: Float[Tensor, "images features"]
) -> Float[Tensor, "images prototypes"] | None:
    """Return ``Objective.cluster`` in evaluation mode, picture by picture the same."""
    was_training = objective.training
    objective.eval()
    device = next(objective.encoder.parameters()).device
    objective.to(device)  # the encoder alone may have been moved
    shares = [objective.cluster(share.to(device)) for share in torch.split(features, 4096)]
    objective.train(was_training)
    found = [share.cpu() for share in shares if share is not None]
    return torch.cat(found) if found else None


@dataclass(frozen=True)
class MethodClusters(Clusters):
    """The clusters of a trained method, as evaluations ask for them."""

    objective: Objective

    def probabilities(
        self, features: Float[Tensor, "images features"]
    ) -> Float[Tensor, "images prototypes"]:
        """Return the probability of each cluster."""
        found = clusters_of(self.objective, features)
        assert found is not None
        return found

    def prototypes(self) -> Float[Tensor, "prototypes embed"] | None:
        """Return the first head's prototypes, None if the method has no such thing."""
        for module in self.objective.modules():
            if isinstance(module, Prototypes):
                return next(module.parameters()).detach().cpu().float()
        return None


def clusters_of_method(objective: Objective) -> MethodClusters | None:
    """Return the clusters of a method, None if it has none."""
    nothing = torch.zeros(1, int(objective.encoder.num_features))  # type: ignore[arg-type]
    return None if clusters_of(objective, nothing) is None else MethodClusters(objective)


def read_record(folder: Path) -> dict[str, Any]:
    """Return ``run.json``, or nothing where there is none yet."""
    path = folder / "run.json"
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return record


def write_record(folder: Path, **changes: Any) -> None:
    """Change values of ``run.json``; a reader sees the old file or the whole new one."""
    record = {**read_record(folder), **changes}
    unfinished = folder / ".run.json.tmp"
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / "run.json")


def open_pictures(run: Run, data: str | None, *, split: str | None = None) -> Pictures:
    """Return DATA, by default the training's own pictures, read as the run reads them."""
    source = run.config.data if data is None else replace(run.config.data, data=data, split=None)
    if split is not None:
        source = replace(source, split=split)
    return source.build().load()
