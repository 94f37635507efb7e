"""A run folder with everything in it, names and texts as hostile as file systems allow."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, opened
from PIL import Image

from swav.data.sources.open import SourceConfig
from swav.data.sources.pictures import Pictures

__all__ = ["chromium", "opened"]  # fixtures

HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    '"><script>alert(1)<|script>.png',
    "' onmouseover='alert(1).png",
    "javascript:alert(1).png",
    "{{ 7 * 7 }}{% raw %}.png",
    "&lt;b&gt;&amp;.png",
    "undecodable \udcff.png",
    "right to left \u202egpj.png",
    "new\nline.png",
    "n" * 251 + ".png",
)
NAMES = (*HOSTILE, *(f"plain{index:03}.png" for index in range(50)))
NUM_CLUSTERS = 26
SCRIPT = "</pre></style><script>alert(1)</script><img src=http://example.com/x onerror=alert(1)>"


def colour(index: int) -> tuple[int, int, int]:
    return (40 + 53 * index % 200, 40 + 97 * index % 200, 40 + 31 * index % 200)


def write_pictures(folder: Path) -> None:
    """Write a picture of one colour under each name."""
    folder.mkdir()
    for index, name in enumerate(NAMES):
        Image.new("RGB", (40, 32), colour(index)).save(os.fsencode(folder / name), format="PNG")


def write_run(folder: Path) -> None:
    """Write the files of a run that was trained on the pictures."""
    (folder / "eval").mkdir(parents=True)
    (folder / "pictures").mkdir()
    run = {"data": f"/home/someone/{SCRIPT}", "method": "swav", "backbone": SCRIPT, "seed": 0}
    run |= {"num_images": len(NAMES), "recipe": "demo", "seconds": 252.4, "status": SCRIPT}
    run |= {"versions": {SCRIPT: SCRIPT}, "command": ["swav", "train", SCRIPT]}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.yaml").write_text(f"data:\n  data: {SCRIPT}\nepochs: 60\n")
    (folder / "bad_files.txt").write_text(f"{SCRIPT}\tis not a picture\n" * 2)
    write_metrics(folder)
    write_evaluations(folder)
    write_arrays(folder)
    write_clusters(folder)


def write_arrays(folder: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(len(NAMES), 5)).astype(np.float32)
    labels = np.arange(len(NAMES)) % 3
    paths, classes = np.array(NAMES), np.array(["plain", SCRIPT, "' onclick='alert(1)"])
    path = folder / "embeddings.npz"
    np.savez(path, embeddings=values, paths=paths, labels=labels, classes=classes)
    views = generator.integers(0, 255, size=(3, 2, 24, 24, 3), dtype=np.uint8)
    path = folder / "pictures" / "views.npz"
    np.savez(path, names=paths[:3], group0=views, group1=views[:, :, ::2, ::2])


def write_clusters(folder: Path) -> None:
    path = folder / "clusters.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "cluster", "probability"])
        for index, name in enumerate(NAMES):
            cluster = 0 if index < 20 else 1 + index % (NUM_CLUSTERS - 1)
            rows.writerow([name, cluster, 0.2 + (index * 37 % 60) / 100])


def write_metrics(folder: Path) -> None:
    losses = np.linspace(math.log(26), 1.2345, 50)
    with (folder / "metrics.jsonl").open("w") as file:
        for index, loss in enumerate(losses):
            line = {"step": 10 * index, "epoch": index, "loss": loss, "lr": 0.1, "ln_k": losses[0]}
            line |= {"loss_floor": 0.9, "code_entropy": 0.5, "prototypes_used": 0.875}
            file.write(json.dumps(line | {"images_per_second": 800.0}) + "\n")


def write_evaluations(folder: Path) -> None:
    top1 = {"is_share": True, "higher_is_better": True}
    knn = {
        "task": "knn",
        "title": "Nearest neighbours",
        "about": {f"top1_k{k}": {"title": f"top-1 accuracy, k = {k}", **top1} for k in (5, 10)},
        "lead": "top1_k10",
        "finding": "of the pictures get their right label from their nearest neighbours",
        "protocol": {"split": "leave one out", "temperature": 0.07, "note": SCRIPT},
        "metrics": {"top1_k5": 0.6062, "top1_k10": 0.6134},
        "intervals": {"top1_k10": [0.5913, 0.6351]},
        "baselines": {
            "random": {"top1_k5": 0.5711, "top1_k10": 0.5742},
            "pixels": {"top1_k5": 0.6011, "top1_k10": 0.6553},
            "patch-kmeans": {"top1_k5": 0.6032, "top1_k10": 0.6001},
        },
        "counts": {"score": 1906},
    }
    metrics = {SCRIPT: 0.5, "gain": 1.25, "titled": 1.0}
    unknown = {"task": SCRIPT, "title": SCRIPT, "metrics": metrics, "protocol": {}}
    unknown |= {"lead": [SCRIPT], "about": {"titled": {"title": SCRIPT}, "gain": SCRIPT}}
    (folder / "eval" / "knn.json").write_text(json.dumps(knn))
    (folder / "eval" / "zzz.json").write_text(json.dumps(unknown))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures with hostile names."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    write_pictures(folder)
    return folder


@pytest.fixture(scope="session")
def colours() -> dict[str, tuple[int, int, int]]:
    """Return the colour of each picture by name."""
    return {name: colour(index) for index, name in enumerate(NAMES)}


@pytest.fixture(scope="session")
def pictures(photos: Path) -> Pictures:
    """Return the pictures that the run was trained on."""
    return SourceConfig(data=str(photos)).build()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole run folder; tests do not change it but for the report."""
    folder = tmp_path_factory.mktemp("runs") / '"><script>alert(1)'
    write_run(folder)
    return folder
