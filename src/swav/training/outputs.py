"""What a finished run leaves behind: model, embeddings, clusters, scores, pictures, report."""

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from swav.config import to_dict
from swav.data.sources.decode import Decoded, UnreadablePicture
from swav.data.sources.pictures import Pictures
from swav.data.views.crops import ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views, to_batch
from swav.engine.launch import loading_workers
from swav.engine.objective import Objective
from swav.evals import Features, extract
from swav.evals.harness.baseline_cache import kept_in, users_folder
from swav.evals.harness.baselines import Baselines, Comparison
from swav.evals.harness.cache import cached_in
from swav.evals.harness.eval_data import EvalData, fit_and_score, one_set
from swav.evals.harness.subject import Subject, compute_rows
from swav.evals.presets import PRESETS
from swav.evals.selection import TASKS, at_end, named_tasks, possible_tasks
from swav.exchange.exported import TrainedModel
from swav.exchange.to_timm import save_timm, timm_usage
from swav.recipes.train_config import TrainConfig
from swav.report import write_report
from swav.report.score_table import print_table
from swav.report.wording import drawbacks
from swav.run_folder import layout
from swav.run_folder.atomic import write_atomically
from swav.run_folder.config_file import write_config
from swav.run_folder.readers import Absent, read_evaluations
from swav.run_folder.record import hands_out_start, read_record, write_record
from swav.run_folder.writers import write_views
from swav.training.clusters import assign, clusters_of_method
from swav.training.evaluation import measure
from swav.training.frozen_features import frozen_features
from swav.training.guard import concluded, judged
from swav.training.handed_out import start_with_clusters
from swav.training.model_card import model_card
from swav.training.networks import transform_of
from swav.training.start import Before
from swav.training.tables import write_assignment, write_features

SHOWN_PICTURES = 6


def write_outputs(
    folder: Path,
    config: TrainConfig,
    objective: Objective,
    pictures: Pictures,
    *,
    step: int,
    seconds: float,
    allow_factory: Collection[str] = (),
) -> None:
    """Export, embed, cluster, evaluate (unless told not to) and report.

    What is there stays, unless the record says that it is of an earlier state of the network: then
    it is replaced.

    Args:
        folder: run folder.
        config: settings of the run.
        objective: trained.
        pictures: that it was trained on; where they came from may hold a part to score.
        step: of the network, which is saved; for the run's record.
        seconds: of the training, for the run's record.
        allow_factory: names of factories that may build the untrained network beside it.
    """
    present = _present(folder)
    before = Before(
        config=config,
        folder=folder,
        num_images=len(pictures),
        allow_factory=allow_factory,
        device=next(objective.encoder.parameters()).device,
    )
    outdated = _judge(objective, pictures, before)
    if hands_out_start(read_record(folder)):
        objective, config = start_with_clusters(before, pictures, step=step)
    if (outdated or not (folder / layout.MODEL).exists()) and ":" not in config.backbone.name:
        _export(folder, config, objective)  # timm cannot build another package's network
    _embed_and_cluster(folder, config, objective, pictures, outdated=outdated)
    if outdated:
        _remove_scores(folder, keep_features=config.tuning.part == "head")
    if config.evaluate_at_end:
        source = pictures.source
        eval_data = fit_and_score(source, trained_on=pictures) if source else one_set(pictures)
        _evaluate(folder, config, objective, eval_data, before)
    if outdated:
        (folder / layout.REPORT).unlink(missing_ok=True)
    if read_record(folder).get("status") != "finished":
        write_record(
            folder, status="finished", seconds=seconds, outputs_step=step, outputs_outdated=False
        )
    if (folder / layout.MODEL).exists():  # with the scores, and the time that it took
        path, readme = (
            folder / layout.MODEL / layout.README,
            model_readme(folder, config, objective),
        )
        if not path.exists() or path.read_text("utf-8") != readme:
            write_atomically(path, readme)
    if _present(folder) != present or not (folder / layout.REPORT).exists():
        write_report(folder, pictures)


def drawbacks_of(folder: Path) -> list[str]:
    """Return why the network of a run is no result, and what to do about it; nothing if it is."""
    try:
        evaluations, _ = read_evaluations(folder)
    except Absent:
        evaluations = []
    return drawbacks(read_record(folder), evaluations)


def _judge(objective: Objective, pictures: Pictures, before: Before) -> bool:
    """Compare the network with its start, unless that is recorded.

    Returns:
        Whether outputs in the folder are of another network than the one that is handed out now.
    """
    folder, config, record = before.folder, before.config, read_record(before.folder)
    outdated = bool(record.get("outputs_outdated", False))
    known = record.get("guard")
    if known is None or outdated:
        guard = judged(config, objective.encoder, pictures, before)
    else:
        guard = concluded(config, known)
        if hands_out_start({"guard": guard}) == hands_out_start(record):
            return False
        outdated = True  # --keep is another
        write_config(folder, to_dict(config))
        write_record(folder, status="running", outputs_outdated=True)
    if not outdated:  # then it stays until there is a newer one
        (folder / layout.REPORT).unlink(missing_ok=True)  # older than the comparison
    write_record(folder, guard=guard)
    return outdated


def _remove_scores(folder: Path, *, keep_features: bool) -> None:
    """Remove the scores of an earlier state of the network; evaluations of other names stay."""
    if not keep_features:
        shutil.rmtree(folder / layout.FEATURES, ignore_errors=True)
    for name in (*TASKS, *PRESETS):
        for suffix in (".json", ".svg"):
            layout.evaluation(folder, name, suffix).unlink(missing_ok=True)


def _present(folder: Path) -> set[Path]:
    return {
        path
        for path in (
            folder / layout.MODEL,
            *folder.glob("*.*"),
            *layout.evaluation(folder, "").parent.glob("*.json"),
        )
        if path.exists()
    }


def _export(folder: Path, config: TrainConfig, objective: Objective) -> None:
    save_timm(
        objective.encoder,
        folder / layout.MODEL,
        config=config.backbone,
        transform=transform_of(config),
        readme=model_readme(folder, config, objective),
    )


def model_readme(folder: Path, config: TrainConfig, objective: Objective) -> str:
    """Return what the folder of the model says of it."""
    model = TrainedModel(
        backbone=objective.encoder, config=config.backbone, transform=transform_of(config)
    )
    return model_card(folder, config, timm_usage(model))


def _embed_and_cluster(
    folder: Path,
    config: TrainConfig,
    objective: Objective,
    pictures: Pictures,
    *,
    outdated: bool,
) -> None:
    embeddings, clusters = folder / layout.EMBEDDINGS, folder / layout.CLUSTERS
    if not outdated and embeddings.exists() and clusters.exists():
        return
    features = _features(folder, config, objective, pictures)
    if outdated or not embeddings.exists():
        write_features(features, embeddings)
    if outdated or not clusters.exists():
        write_assignment(features, assign(objective, features.values), clusters)


def _features(
    folder: Path, config: TrainConfig, objective: Objective, pictures: Pictures
) -> Features:
    """Return the features of the pictures, those that a head was trained on if it was."""
    if config.tuning.part == "head":
        return frozen_features(objective.encoder, pictures, config, folder)
    device = next(objective.encoder.parameters()).device
    return extract(
        objective.encoder,
        pictures,
        transform_of(config),
        device=device,
        workers=loading_workers(device),
    )


def draw_views(folder: Path, pictures: Pictures, config: TrainConfig) -> None:
    """Write the views of a few pictures, as the first epoch sees them, for the report."""
    wanted = np.linspace(0, len(pictures) - 1, min(SHOWN_PICTURES, len(pictures))).astype(np.int64)
    indices, shown = [], []
    for index in wanted.tolist():
        try:
            picture = pictures[index]
        except UnreadablePicture:
            continue
        shown.append(Decoded(picture, (picture.shape[1], picture.shape[2])))
        indices.append(index)
    if not shown:
        return
    byte_views = make_byte_views(
        PictureBatch(shown),
        np.array(indices),
        config.views,
        seed=config.seed,
        epoch=0,
        pipeline=config.views.pipeline,
    )
    views = to_batch(byte_views, config.views).views
    names = [pictures.names[index] for index in indices]
    write_views(folder, names, _by_group(views, config.views))


def _by_group(views: tuple[torch.Tensor, ...], config: ViewsConfig) -> dict[str, np.ndarray]:
    """Return the views of each group as bytes, (pictures, views, height, width, channels)."""
    mean, std = (
        torch.tensor(config.mean)[:, None, None],
        torch.tensor(config.std)[:, None, None],
    )
    rest = list(views)
    arrays = {}
    for place, group in enumerate(config.groups):
        together, rest = torch.stack(rest[: group.count], dim=1), rest[group.count :]
        visible = ((together * std + mean) * 255).round().clamp(0, 255).byte()
        arrays[f"group{place}"] = visible.permute(0, 1, 3, 4, 2).numpy()
    return arrays


def _evaluate(
    folder: Path,
    config: TrainConfig,
    objective: Objective,
    eval_data: EvalData,
    before: Before,
) -> None:
    """Measure what the labels allow; a task that they do not is left out with a warning."""
    tasks = dict.fromkeys((*possible_tasks(eval_data), "part_retrieval"))
    missing = [name for name in tasks if not layout.evaluation(folder, name).exists()]
    if not missing:
        return

    cache = cached_in(folder / layout.FEATURES) if config.tuning.part == "head" else compute_rows
    results = []
    for some, names in at_end(eval_data, missing):
        subject = Subject(
            some.load(),
            objective.encoder,
            transform_of(config),
            clusters_of_method(objective),
            cache,
            workers=loading_workers(config.device),
        )
        baselines = Baselines(subject.data, workers=subject.workers, kept=kept_in(users_folder()))
        comparison = Comparison(
            subject, before.untrained, config.seed, baselines, before.start_if_there
        )
        model = folder.resolve().name
        measured, _ = measure(comparison, named_tasks(names), model=model, folder=folder)
        results += measured
    if results:
        print_table({folder.name: [results]}, title=str(folder), stderr=True)
