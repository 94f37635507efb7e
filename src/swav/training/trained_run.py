"""A run folder opened again: its settings and the network that came out of it."""

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.pictures import Pictures
from swav.engine import Objective
from swav.engine.launch import loading_workers, resolved_device
from swav.evals import Features, extract
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.run_folder import layout
from swav.run_folder.checkpoint import newest_checkpoint
from swav.run_folder.clusterings import PROTOTYPES, read_cluster_names
from swav.run_folder.readers import Absent, read_embeddings
from swav.run_folder.record import damaged_record, read_record
from swav.run_folder.state import restore_weights
from swav.run_folder.writers import check_clusters_path, check_embeddings_path, write_embeddings
from swav.training.clusterings import Clustered, Clusterings, NumClusters, summary
from swav.training.clusters import write_assignment
from swav.training.networks import transform_of, untrained_network, untrained_objective

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """A trained network with everything needed to use it on other pictures."""

    folder: Path
    config: TrainConfig
    objective: Objective
    num_images: int
    """Pictures it was trained on."""
    allow_factory: Collection[str] = ()
    """Factories that may build its network."""
    checkpoint: Path | None = None
    """Where the weights are from."""

    @property
    def backbone(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return self.objective.encoder

    @property
    def transform(self) -> EvalTransform:
        """What turns pictures into the network's input."""
        return transform_of(self.config)

    def pictures(self, data: str | Pictures | None = None) -> Pictures:
        """Return DATA, by default the training's own pictures, read as the run reads them."""
        if isinstance(data, Pictures):
            return data.load()
        source = self.config.data
        if data is not None:
            source = replace(source, data=data, split=None)
        return source.build().load()

    def features(self, pictures: Pictures) -> Features:
        """Return the pooled features of every readable picture, not normalised."""
        device = next(self.backbone.parameters()).device
        workers = loading_workers(device)
        return extract(self.backbone, pictures, self.transform, device=device, workers=workers)

    def embed(self, data: str | Pictures | None = None, *, to: str | Path) -> Features:
        """Write the features of every readable picture to a file, and return them.

        The order is that of the pictures; features are not normalised.

        Args:
            data: pictures, by their DATA or opened; by default those of the training.
            to: ``.npz`` (arrays ``embeddings``, ``paths``, ``labels``), ``.csv`` or ``.parquet``.

        Raises:
            ValueError: if the ending of ``to`` is none of these.
        """
        check_embeddings_path(Path(to))
        features = self.features(self.pictures(data))
        write_features(features, Path(to))
        return features

    def cluster(
        self,
        data: str | Pictures | None = None,
        *,
        to: str | Path | None = None,
        k: NumClusters | None = None,
        match: bool = True,
    ) -> Clustered:
        """Write the cluster of every readable picture to a file, and return what is in it in short.

        Args:
            data: pictures, by their DATA or opened; by default those of the training.
            to: ``.csv`` or ``.parquet``; by default ``clusters.csv`` of the run folder.
            k: number of clusters, or "auto"; by default the method's own.
            match: keep the numbers of the same clustering of an earlier network, in the file that
                is replaced or in the run folder.

        Raises:
            ValueError: if there cannot be so many clusters, or the names of clusters are damaged.
        """
        path = self.folder / layout.CLUSTERS if to is None else Path(to)
        check_clusters_path(path)
        clusterings = Clusterings(self.folder, self.objective, self._training_features)
        clusterings.check(k)
        read_cluster_names(self.folder, PROTOTYPES)  # a damaged file is found before the long pass
        features = self.features(self.pictures(data))
        if data is None:
            clusterings = replace(clusterings, training=lambda: features)
        numbered = clusterings.of(features, k=k, target=path, match=match)
        names = read_cluster_names(self.folder, numbered.assignment.clustering)
        if names and not match:
            logger.warning("%s names clusters by earlier numbers", self.folder / layout.NAMES)
        write_assignment(features, numbered.assignment, path, names)
        return summary(numbered, path, names, clusterings.directions())

    def _training_features(self) -> Features:
        """Return the features of the training's pictures, as its end left them if it did."""
        record = read_record(self.folder)
        if record.get("status") == "finished" and record.get("outputs_step") is not None:
            with suppress(Absent):
                kept = read_embeddings(self.folder)
                return Features(torch.from_numpy(kept.values), None, kept.paths)
        return self.features(self.pictures())

    def untrained(self) -> nn.Module:
        """Return the same network with random weights."""
        return untrained_network(
            self.config, num_images=self.num_images, allow_factory=self.allow_factory
        )


def load(
    folder: str | Path, *, device: str = "auto", allow_factory: Collection[str] = ()
) -> TrainedRun:
    """Open a run folder.

    Args:
        folder: the ``out`` of a training.
        device: where its network computes: auto, cpu, cuda, mps, or one device such as cuda:1.
        allow_factory: ``package.module:function`` that its config may name as the backbone.

    Raises:
        ValueError: if the folder holds no run, or one that has not come to a checkpoint, it names
            a factory that is not allowed, or its newest checkpoint is not of its last step.
    """
    folder = Path(folder)
    if not layout.is_run(folder):
        raise ValueError(
            f"{folder} is no run folder (no {layout.CONFIG}): give the --out of a training"
        )
    config = read_train_config(folder / layout.CONFIG)
    record = read_record(folder)
    if "num_images" not in record:
        raise damaged_record(folder, "is missing or does not say num_images")
    num_images = int(record["num_images"])
    checkpoint = newest_checkpoint(folder, repair=False)
    if checkpoint is None:
        if record.get("saved_step"):
            raise ValueError(
                f"{folder} has lost what it saved, the last at step {record['saved_step']}: "
                f"bring {layout.CHECKPOINTS}/ back ({folder / layout.MODEL} alone opens with timm)"
            )
        raise ValueError(f"{folder} has no checkpoint yet: let the training save once")
    _check_step(folder, record, checkpoint.step)
    objective = untrained_objective(config, num_images=num_images, allow_factory=allow_factory)
    restore_weights(checkpoint.tensors, objective)
    objective.to(resolved_device(device)).eval()
    return TrainedRun(folder, config, objective, num_images, allow_factory, checkpoint.folder)


def _check_step(folder: Path, record: Mapping[str, Any], step: int) -> None:
    """Refuse a finished run that has lost its last state, and say which one is opened else."""
    made_at, status = record.get("outputs_step"), record.get("status")
    if status != "finished":
        outputs = "" if made_at is None else f"; its outputs are of step {made_at}"
        logger.warning(
            "%s is not finished (status %s): opened at step %d%s", folder, status, step, outputs
        )
    elif made_at not in (None, step):
        lost = layout.checkpoint(folder, made_at).relative_to(folder)
        raise ValueError(
            f"{folder} finished at step {made_at}, but its newest checkpoint that can be read is "
            f"of step {step}, not what its {layout.MODEL}/ and embeddings were made of: restore "
            f"{lost} from a backup, or train the rest again with swav train --resume --out "
            f"{folder} ({folder / layout.MODEL} alone opens with timm)"
        )


def write_features(features: Features, path: Path) -> None:
    """Write features with the names of the pictures, and their labels if they have any."""
    labels = None if features.labels is None else features.labels.numpy()
    write_embeddings(path, features.values.numpy(), features.names, labels, features.classes)
