"""The machine that a run is on: threads, loading processes, compilation, and what changed since."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from swav import distributed
from swav.engine.launch import available_cores, loading_workers
from swav.recipes.train_config import TrainConfig
from swav.run_folder.result import installed_versions

logger = logging.getLogger(__name__)


def num_workers(config: TrainConfig) -> int:
    """Return the processes that make views, for each rank."""
    return config.workers if config.workers >= 0 else loading_workers(config.device)


def num_threads(config: TrainConfig) -> int:
    """Return the network's threads: all cores of this rank, as compiled views take few percent.

    With Pillow's, a thread that waits for a core would hold up all the others.
    """
    cores = available_cores() // distributed.local_world_size()
    loading = num_workers(config) if config.views.pipeline == "pillow" else 0
    return config.threads or max(1, cores - loading)


def compiles(config: TrainConfig, fabric: Fabric) -> bool:
    """On a CPU compiling costs minutes and was not seen to gain anything (docs/decisions)."""
    return config.compile == "on" or (config.compile == "auto" and fabric.device.type == "cuda")


def describe(fabric: Fabric, config: TrainConfig) -> dict[str, Any]:
    """Return what the run's record says of the machine."""
    return {
        "device": str(fabric.device),
        "ranks": distributed.world_size(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "precision": config.precision,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def restore(meta: Mapping[str, Any]) -> None:
    """Restore the number of threads, and say what keeps the run from going on bit for bit."""
    same_ranks = meta["ranks"] == distributed.world_size()
    if same_ranks and meta["threads"] <= available_cores():
        torch.set_num_threads(meta["threads"])
    here = {
        "ranks": distributed.world_size(),
        "threads": torch.get_num_threads(),
        **installed_versions(),
    }
    there = {"ranks": meta["ranks"], "threads": meta["threads"], **meta["versions"]}
    other = [
        f"{name} {there.get(name)} -> {value}"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if other:
        logger.warning(
            "going on under other conditions (%s): close to an uninterrupted run, not equal to it "
            "bit for bit",
            ", ".join(other),
        )
