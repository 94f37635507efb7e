"""Every path and file name of a run folder, once."""

from pathlib import Path

CONFIG = "config.yaml"
"""Every option of the run."""
RECORD = "run.json"
"""What the run is and how it went: see ``record.py``."""
METRICS = "metrics.jsonl"
LOG = "train.log"
LOCK = "run.lock"
BAD_FILES = "bad_files.txt"
TENSORBOARD = "tensorboard"

CHECKPOINTS = "checkpoints"
STATE, META, MANIFEST = "state.safetensors", "meta.json", "MANIFEST.json"
"""Of one checkpoint."""
STEP, REPLACED, DAMAGED = "step-", ".old", ".bad"
"""How the folder of a checkpoint begins, and how one ends that was replaced or found damaged."""

HANDED_OUT = "handed_out"
"""A checkpoint of the network that the run started from, with clusters, where that is its model."""

MODEL = "model"
"""The exported backbone, a folder that timm opens."""
EXPORTS = "export"
"""Folders of other formats, each called after its own."""
README = "README.md"
"""Of the model, and of every export."""
EMBEDDINGS = "embeddings.npz"
CLUSTERS = "clusters.csv"
CLUSTER_PROBABILITIES = "clusters.npz"
LINKS = "links.txt"
"""Of a folder of links for each cluster: what is in it, so that nothing else is removed."""
CLUSTERINGS = "clusterings"
"""One file for each clustering whose numbers later calls keep: see ``KeptClustering``."""
NAMES = "names.csv"
"""What people call the clusters: columns clustering (``prototypes``, ``k=12``), cluster, name."""
EVALUATIONS = "eval"
"""One JSON file for each result, and its picture if it has one."""
FEATURES = "features"
"""Of evaluations, so that the same network sees the same pictures once."""
VIEWS = "pictures/views.npz"
MAP = "map.npz"
"""Where pictures lie on the map of the report: arrays rows, paths, x, y."""
SELECTIONS = "selections"
"""One CSV file for each selection of pictures that a person named."""
REPORT = "report.html"


def checkpoint(run_folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return run_folder / CHECKPOINTS / f"{STEP}{step:08d}"


def evaluation(run_folder: Path, label: str, suffix: str = ".json") -> Path:
    """Return where the result of a task or preset is, or the picture (``.svg``) beside it."""
    return run_folder / EVALUATIONS / f"{label}{suffix}"


def clustering(run_folder: Path, name: str) -> Path:
    """Return where what makes a clustering is kept."""
    return run_folder / CLUSTERINGS / f"{name}.npz"


def export(run_folder: Path, name: str) -> Path:
    """Return where the network is in a format."""
    return run_folder / EXPORTS / name


def selection(run_folder: Path, name: str) -> Path:
    """Return where a selection of pictures is."""
    return run_folder / SELECTIONS / f"{name}.csv"


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run."""
    return (folder / CONFIG).exists()
