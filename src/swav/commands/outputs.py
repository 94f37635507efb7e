"""What a finished run leaves behind: model, embeddings, clusters, scores, pictures, report."""

import sys
from pathlib import Path

import numpy as np
import torch

from swav.commands.cluster import write_clusters
from swav.commands.embed import write_embeddings
from swav.commands.evaluate import LABELLED, measure, print_table, task_config
from swav.commands.runs import build_objective, clusters_of, transform_of
from swav.data.crops import ViewsConfig
from swav.data.loader import make_views
from swav.data.sources import Pictures, UnreadablePicture
from swav.engine.objective import Objective
from swav.evals import Features, extract
from swav.nn.export import save_timm
from swav.recipes.train_config import TrainConfig
from swav.report import write_report

SHOWN_PICTURES = 6


def write_outputs(
    folder: Path, config: TrainConfig, objective: Objective, pictures: Pictures
) -> None:
    """Export, embed, cluster, evaluate and report, in this order."""
    transform = transform_of(config)
    backbone = objective.encoder
    if ":" not in config.backbone.name:  # timm cannot build another package's network
        save_timm(
            backbone,
            folder / "model",
            config=config.backbone,
            transform=transform,
            readme=_model_readme(config),
        )
    device = next(backbone.parameters()).device
    features = extract(backbone, pictures, transform, device=device)
    write_embeddings(features, folder / "embeddings.npz")
    probabilities = clusters_of(objective, features.values)
    write_clusters(features, probabilities, folder / "clusters.csv")
    _evaluate(folder, config, objective, pictures)
    write_report(folder, pictures)


def write_views(folder: Path, pictures: Pictures, config: TrainConfig) -> None:
    """Write the views of a few pictures, as the first epoch sees them, for the report."""
    wanted = np.linspace(0, len(pictures) - 1, min(SHOWN_PICTURES, len(pictures))).astype(np.int64)
    indices, shown = [], []
    for index in wanted.tolist():
        try:
            shown.append(pictures[index])
        except UnreadablePicture:
            continue
        indices.append(index)
    if not shown:
        return
    views = make_views(shown, np.array(indices), config.views, seed=config.seed, epoch=0)
    names = [pictures.names[i].encode("utf-8", "backslashreplace").decode() for i in indices]
    arrays = {"names": np.array(names), **_by_group(views, config.views)}
    path = folder / "pictures" / "views.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


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


def _evaluate(folder: Path, config: TrainConfig, objective: Objective, pictures: Pictures) -> None:
    tasks = (*LABELLED, "parts") if pictures.labels is not None else ("parts",)
    if pictures.labels is not None and len(np.unique(pictures.labels)) < 2:
        tasks = ("parts",)
    fit, score = pictures, None

    def assign(features: Features) -> torch.Tensor | None:
        probabilities = clusters_of(objective, features.values)
        return None if probabilities is None else probabilities.argmax(dim=1)

    results = measure(
        objective.encoder,
        build_objective(config, num_images=len(pictures)).encoder,
        fit,
        score,
        configs=[task_config(name) for name in tasks],
        transform=transform_of(config),
        seed=config.seed,
        cluster=assign,
    )
    for result in results:
        result.write(folder / "eval" / f"{result.task}.json")
    print_table(results, title=str(folder), file=sys.stderr)


def _model_readme(config: TrainConfig) -> str:
    own = config.backbone.name in (
        "cifar_resnet18",
        "resnet50w2",
        "resnet50w4",
        "resnet50w5",
    )
    first = "import swav.nn  # registers the network with timm\n" if own else ""
    return f"""# {config.backbone.name}, pre-trained without labels

Trained by `swav` with the method `{config.method.name}` on `{config.data.data}`.

```python
{first}import timm

model = timm.create_model("local-dir:THIS_FOLDER", pretrained=True, num_classes=0).eval()
config = timm.data.resolve_data_config({{}}, model=model)
transform = timm.data.create_transform(**config, is_training=False)
features = model(transform(picture)[None])  # (1, {{model.num_features}})
```
"""
