"""A run folder opened again: its settings and the network that came out of it."""

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from swav.config import UsageError, from_dict
from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import Data, opened_as
from swav.data.sources.pictures import Pictures
from swav.engine import Objective
from swav.engine.launch import loading_workers, resolved_device
from swav.evals import Features, extract
from swav.evals.harness.subject import Shown
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.report.notebook import notebook_page
from swav.report.thumbnails import Album
from swav.run_folder import layout
from swav.run_folder.checkpoint import Checkpoint, newest_checkpoint
from swav.run_folder.cluster_folder import check_cluster_folder, is_folder
from swav.run_folder.clusterings import PROTOTYPES, read_cluster_names
from swav.run_folder.readers import Absent, Evaluation, read_embeddings, read_evaluations
from swav.run_folder.record import (
    damaged_record,
    hands_out_start,
    is_imported,
    read_record,
)
from swav.run_folder.state import restore_weights
from swav.run_folder.writers import check_clusters_path, check_embeddings_path
from swav.training.bar import PicturesProgress
from swav.training.clusterings import Clustered, Clusterings, NumClusters, check_number, summary
from swav.training.clusters import network_digest
from swav.training.continuation import check_step
from swav.training.networks import transform_of, untrained_network, untrained_objective
from swav.training.picture_encoder import PictureEncoder
from swav.training.searching import (
    DUPLICATE_COSINE,
    Duplicate,
    Match,
    Odd,
    cropped,
    duplicates,
    nearest_to,
    odd_ones,
)
from swav.training.tables import (
    Thumbnail,
    link_clusters,
    named_after,
    write_assignment,
    write_features,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class TrainedRun:
    """A trained network with everything needed to use it on other pictures.

    It stands for its folder wherever a path is taken: ``open(run / "metrics.jsonl")``.
    """

    folder: Path
    config: TrainConfig
    objective: Objective
    num_images: int
    """Pictures it was trained on; 0 for imported weights, which do not tell."""
    allow_factory: Collection[str] = ()
    """Factories that may build its network."""
    checkpoint: Path | None = None
    """Where the weights are from."""
    is_start: bool = False
    """Whether the network is the one that the training started from."""
    trained_on: Pictures | None = None
    """The pictures of the training where a program held them, so that nothing opens them again."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def __str__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return notebook_page(self.folder)

    @property
    def backbone(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return self.objective.encoder

    model = backbone

    @cached_property
    def encoder(self) -> PictureEncoder:
        """The network as a module that takes pictures: ``encode(images)``, ``assign(images)``."""
        return PictureEncoder(self.objective, self.transform, self.config.data)

    @property
    def scores(self) -> dict[str, Evaluation]:
        """What was measured so far, by task, with the baselines; empty if nothing was."""
        try:
            evaluations, _ = read_evaluations(self.folder)
        except Absent:
            return {}
        return {each.name or each.task: each for each in evaluations}

    @property
    def transform(self) -> EvalTransform:
        """What turns pictures into the network's input."""
        return transform_of(self.config)

    def pictures(self, data: Data | None = None) -> Pictures:
        """Return DATA, by default the training's own pictures, read as the run reads them.

        Raises:
            ValueError: if these are not known, as of imported weights.
        """
        return self.open(data).load()

    def open(self, data: Data | None = None) -> Pictures:
        """Return the same as ``pictures``, decoded when they are asked for."""
        if data is None and is_imported(self.folder):
            raise ValueError(
                f"{self.folder} was imported, and the pictures that its weights were trained on "
                "are not known: name pictures, as DATA after it"
            )
        if data is None:
            return self.trained_on or self.config.data.build()
        return opened_as(data, self.config.data)

    def features(self, pictures: Pictures) -> Features:
        """Return the pooled features of every readable picture, not normalised."""
        device = next(self.backbone.parameters()).device
        workers = loading_workers(device)
        with PicturesProgress(len(pictures)) as progress:
            return extract(
                self.backbone,
                pictures,
                self.transform,
                device=device,
                workers=workers,
                on_progress=progress.update,
            )

    def embed(
        self, data: Data | None = None, *, to: str | Path | None = None, thumbnails: int = 0
    ) -> Features:
        """Return the features of every readable picture, and write them to a file if there is one.

        The order is that of the pictures; features are not normalised.

        Args:
            data: pictures, by their DATA, opened, or what ``swav.from_arrays`` takes; by default
                those of the training.
            to: ``.npz`` (arrays ``embeddings``, ``paths``, ``labels``), ``.csv`` or ``.parquet``.
            thumbnails: longest side of the pictures that ``.parquet`` holds; 0 for none.

        Raises:
            ValueError: if the ending of ``to`` is none of these.
        """
        if to is None:
            return self.features(self.pictures(data))
        check_embeddings_path(Path(to))
        pictures = self.pictures(data)
        thumbnail = _thumbnails(pictures, thumbnails, Path(to))
        features = self.features(pictures)
        network = network_digest(self.objective)
        write_features(features, Path(to), network=network, thumbnail=thumbnail)
        return features

    def cluster(
        self,
        data: Data | None = None,
        *,
        to: str | Path | None = None,
        k: NumClusters | None = None,
        match: bool = True,
        thumbnails: int = 0,
    ) -> Clustered:
        """Write the cluster of every readable picture to a file, and return what is in it in short.

        Args:
            data: pictures, by their DATA, opened, or what ``swav.from_arrays`` takes; by default
                those of the training.
            to: ``.csv`` or ``.parquet``, or a folder (there already, or ending with a slash) for a
                CSV file and links to the pictures, those of a cluster in a folder; by default
                ``clusters.csv`` of the run folder, of other pictures ``DATA-clusters.csv`` here.
            k: number of clusters, or "auto"; by default the method's own.
            match: keep the numbers of the same clustering of an earlier network, in the file that
                is replaced or in the run folder.
            thumbnails: longest side of the pictures that ``.parquet`` holds; 0 for none.

        Raises:
            ValueError: if there cannot be so many clusters, or the names of clusters are damaged.
        """
        with_links = to is not None and is_folder(to)
        path = self._clusters_path(data, to)
        check_clusters_path(path)
        clusterings = Clusterings(self.folder, self.objective, self._training_features)
        if isinstance(k, int):
            check_number(k)
        read_cluster_names(self.folder, PROTOTYPES)  # a damaged file is found before the long pass
        pictures = self.pictures(data)
        thumbnail = _thumbnails(pictures, thumbnails, path)
        features = self.features(pictures)
        if data is None or is_imported(self.folder):  # which has no pictures but those it is given
            clusterings = replace(clusterings, training=lambda: features)
        numbered = clusterings.of(features, k=k, target=path, match=match)
        names = read_cluster_names(self.folder, numbered.assignment.clustering)
        if names and not match:
            logger.warning("%s names clusters by earlier numbers", self.folder / layout.NAMES)
        write_assignment(
            features,
            numbered.assignment,
            path,
            names,
            network=network_digest(self.objective),
            thumbnail=thumbnail,
        )
        if with_links:
            link_clusters(path.parent, features, numbered.assignment, self.open(data), names)
        return summary(numbered, path, names, clusterings.directions())

    def _clusters_path(self, data: Data | None, to: str | Path | None) -> Path:
        if to is None:
            return (
                self.folder / layout.CLUSTERS
                if data is None
                else named_after(data, layout.CLUSTERS)
            )
        if not is_folder(to):
            return Path(to)
        check_cluster_folder(Path(to))
        return Path(to) / layout.CLUSTERS

    def search(
        self,
        picture: Data,
        among: Data | None = None,
        *,
        top: int = 10,
        crop: tuple[int, int, int, int] | None = None,
    ) -> list[Match]:
        """Return the pictures that are nearest to each of some others, by the cosine of features.

        Args:
            picture: one or several.
            among: pictures that can be found; by default those of the training, whose features the
                run has.
            top: how many to find.
            crop: x, y, width, height of the box of ``picture`` to search for, in its pixels.

        Raises:
            ValueError: if the box is not inside of a single picture.
        """
        queries = self.pictures(picture)
        queries = queries if crop is None else cropped(queries, crop)
        return nearest_to(self.features(queries), self._gallery(among), top=top)

    def odd(self, among: Data | None = None, *, top: int = 20) -> list[Odd]:
        """Return the pictures that are farthest from their five nearest neighbours."""
        return odd_ones(self._gallery(among), top=top)

    def duplicates(
        self, among: Data | None = None, *, cosine: float = DUPLICATE_COSINE
    ) -> list[Duplicate]:
        """Return groups of pictures with the same pixels or centred features of that cosine."""
        return duplicates(self._gallery(among), self.open(among), cosine=cosine)

    def _gallery(self, among: Data | None) -> Features:
        if among is None:
            return self._training_features()
        return self.features(self.pictures(among))

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

    def start(self) -> Shown | None:
        """Return the network that the training started from, with the input its weights know.

        None for a random one, and with a warning for one that cannot be opened any more.
        """
        from swav.training.start import Before  # which opens runs, since they are starts too

        if self.is_start:
            return Shown(self.backbone, self.transform)
        before = Before(
            config=self.config,
            folder=self.folder,
            num_images=self.num_images,
            allow_factory=self.allow_factory,
        )
        return before.start_if_there


def _thumbnails(pictures: Pictures, side: int, path: Path) -> Thumbnail | None:
    """Return what makes thumbnails of pictures for a file, if they are wanted."""
    if side < 0 or (side and path.suffix != ".parquet"):
        raise UsageError(f"thumbnails {side} of {path}: a side in pixels, and .parquet alone")
    return Album(pictures, side=side).jpeg if side else None


def load(
    folder: str | PathLike[str], *, device: str = "auto", allow_factory: Collection[str] = ()
) -> TrainedRun:
    """Open a run folder.

    Args:
        folder: the ``out`` of a training, or a run.
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
    num_images = int(record["num_images"] or 0)
    is_start = hands_out_start(record) and not record.get("outputs_outdated")
    checkpoint = newest_checkpoint(folder / layout.HANDED_OUT if is_start else folder, repair=False)
    if checkpoint is None and is_start:
        raise ValueError(
            f"{folder} has lost {layout.HANDED_OUT}/, its network: swav train --resume --out "
            f"{folder} makes it again ({folder / layout.MODEL} alone opens with timm)"
        )
    if checkpoint is None:
        if record.get("saved_step"):
            raise ValueError(
                f"{folder} has lost what it saved, the last at step {record['saved_step']}: "
                f"bring {layout.CHECKPOINTS}/ back ({folder / layout.MODEL} alone opens with timm)"
            )
        raise ValueError(f"{folder} has no checkpoint yet: let the training save once")
    check_step(folder, record, checkpoint.step)
    if is_start:
        config = handed_out_config(config, checkpoint)
    objective = restored(
        config, checkpoint, num_images=num_images, device=device, allow_factory=allow_factory
    )
    return TrainedRun(
        folder, config, objective, num_images, allow_factory, checkpoint.folder, is_start
    )


def restored(
    config: TrainConfig,
    checkpoint: Checkpoint,
    *,
    num_images: int,
    device: str | torch.device = "auto",
    allow_factory: Collection[str] = (),
) -> Objective:
    """Return what a checkpoint holds, to use it."""
    objective = untrained_objective(config, num_images=num_images, allow_factory=allow_factory)
    restore_weights(checkpoint.tensors, objective)
    return objective.to(resolved_device(str(device))).eval()


def handed_out_config(config: TrainConfig, checkpoint: Checkpoint) -> TrainConfig:
    """Return the config of a run with the input of the start that it handed out."""
    return replace(config, input=from_dict(EvalTransform, checkpoint.meta["input"]))
