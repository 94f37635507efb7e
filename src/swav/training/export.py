"""A trained run in the formats of others, compared with what was trained."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from swav.config import UnknownNameError, UsageError
from swav.data.sources.decode import UnreadablePicture
from swav.data.sources.pictures import Pictures
from swav.exchange.clusterer import Clustering
from swav.exchange.exported import TrainedModel
from swav.exchange.formats import FORMATS, check_target, export_to
from swav.run_folder import layout
from swav.run_folder.clusterings import (
    PROTOTYPES,
    is_clustering,
    read_cluster_names,
    read_clustering,
)
from swav.training.clusters import network_digest
from swav.training.model_card import model_card
from swav.training.trained_run import TrainedRun

COMPARED = 50
"""Pictures that an export is compared on."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One format, written and compared."""

    format: str
    folder: Path
    pictures: int
    """That it was compared on, together; and the first alone."""
    difference: float
    """Largest between its features and those of the trained network."""
    relative: float
    """The same in units of the largest feature."""


def export_run(
    run: TrainedRun,
    formats: Sequence[str],
    *,
    data: str | Pictures | None = None,
    out: Path | None = None,
) -> list[Exported]:
    """Write the network of a run in other formats, each into a folder of its own.

    Args:
        run: opened on the CPU.
        formats: of ``FORMATS``.
        data: pictures to compare on; by default those of the training.
        out: folder around those of the formats; by default ``export`` of the run folder.

    Raises:
        ValueError: if a format is unknown, cannot hold this network, or gives other features.
    """
    folders = {name: _target(run, name, out) for name in known_formats(formats)}
    model = _trained_model(run)
    for name, folder in folders.items():
        FORMATS[name].check(model)
        check_target(folder)
    pictures = _some(run.pictures(data))
    exported = []
    for name, folder in folders.items():
        readme = model_card(run.folder, run.config, FORMATS[name].usage(model))
        difference = export_to(name, model, folder, readme=readme, pictures=pictures)
        exported.append(
            Exported(
                format=name,
                folder=folder,
                pictures=len(pictures),
                difference=difference.absolute,
                relative=difference.relative,
            )
        )
    return exported


def known_formats(formats: Sequence[str]) -> list[str]:
    """Return each format once.

    Raises:
        UsageError: if one is unknown, or there is none.
    """
    if not formats:
        raise UsageError(f"name a format to export to: {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    return list(dict.fromkeys(formats))


def _target(run: TrainedRun, name: str, out: Path | None) -> Path:
    return layout.export(run.folder, name) if out is None else out / name


def _trained_model(run: TrainedRun) -> TrainedModel:
    backbone = copy.deepcopy(run.backbone).to(memory_format=torch.contiguous_format)
    return TrainedModel(
        backbone=backbone.eval(),
        config=run.config.backbone,
        transform=run.transform,
        cluster_head=run.objective.cluster_head,
        clusterings=_clusterings(run),
    )


def _clusterings(run: TrainedRun) -> Mapping[str, Clustering]:
    """Return every clustering of this network, by its name."""
    head = run.objective.cluster_head
    if head is None:
        return {}
    network = network_digest(run.objective)
    number = len(next(head.prototypes.parameters()))
    own = Clustering(list(range(number)), read_cluster_names(run.folder, PROTOTYPES))
    clusterings = {PROTOTYPES: own}
    for path in sorted(layout.clustering(run.folder, "*").parent.glob("*.npz")):
        kept = read_clustering(run.folder, path.stem) if is_clustering(path.stem) else None
        if kept is not None and kept.network == network:
            clusterings[path.stem] = Clustering(
                kept.ids.tolist(),
                read_cluster_names(run.folder, path.stem),
                torch.from_numpy(kept.centres) if kept.centres.size else None,
            )
    return clusterings


def _some(pictures: Pictures) -> list[UInt8[Tensor, "channels _ _"]]:
    """Return at most ``COMPARED`` pictures that can be read, from all of the set."""
    places = np.linspace(0, len(pictures) - 1, min(COMPARED, len(pictures))).astype(np.int64)
    readable = []
    for place in places.tolist():
        try:
            readable.append(pictures[place])
        except UnreadablePicture:
            continue
    if not readable:
        raise ValueError(
            f"no picture of {pictures.data} can be read to compare the export on: give others, as "
            "in swav export RUN DATA"
        )
    return readable
