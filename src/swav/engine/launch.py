"""Where a run computes: device, ranks, precision, threads."""

import os
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from swav import distributed
from swav.config import UsageError
from swav.nn.batchnorm import convert_to_sync_batchnorm

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GPU_BACKENDS = "cpu:gloo,cuda:nccl"
"""Of the process group: banks, metrics and signals are tensors of the CPU, gradients are not."""


def available_cores() -> int:
    """Return the processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def loading_workers(device: str | torch.device) -> int:
    """Return the processes that read pictures, for each rank: beside a GPU all cores but one.

    On a CPU the network needs most of them.
    """
    cores = available_cores() // distributed.local_world_size()
    # views take a few percent of a CPU run since they are compiled (docs/decisions/0015)
    return max(1, cores - 1 if is_gpu(device) else cores // 4)


def is_gpu(device: str | torch.device) -> bool:
    """Return whether ``device`` (auto: what this machine has) is anything but a CPU."""
    name = str(device)
    return torch.cuda.is_available() if name == "auto" else not name.startswith("cpu")


def launch(*, device: str = "auto", precision: str = "32-true", threads: int = 0) -> "Fabric":
    """Return the fabric of this process; under torchrun the process group of all ranks starts.

    Raises:
        UsageError: if this machine lacks the device, or the device lacks the precision.
    """
    # slow to import, and who asks for cores or a device needs none
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    check_machine(device=device, precision=precision)
    kind, _, number = resolved_device(device).partition(":")
    num_local, num_nodes = distributed.local_world_size(), distributed.launched_nodes()
    ranks = num_local * num_nodes
    devices: int | list[int] = [int(number)] if number and ranks == 1 else num_local
    # torchrun leaves one thread to each of several ranks
    torch.set_num_threads(threads or max(1, available_cores() // num_local))
    # its successor, forward_sync_buffers, is not in every torch from 2.10 on
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    strategy = DDPStrategy(
        # the first rank's BatchNorm statistics would overwrite the others' at every step
        broadcast_buffers=False,
        process_group_backend=GPU_BACKENDS if kind == "cuda" else None,
    )
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy if ranks > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def loss_scaler(fabric: "Fabric") -> torch.amp.GradScaler | None:
    """Return what keeps gradients within the range of float16 (``16-mixed``), if anything."""
    from lightning_fabric.plugins import MixedPrecision

    precision = fabric.strategy.precision
    return precision.scaler if isinstance(precision, MixedPrecision) else None


def prepare_network(
    objective: nn.Module, fabric: "Fabric", *, sync_batchnorm: bool, compile_network: bool
) -> None:
    """Lay the network out for the device, before the optimiser is built."""
    if sync_batchnorm:
        convert_to_sync_batchnorm(objective)  # in place: no objective is a BatchNorm itself
    # before the optimiser: it lays its state out as the weights are
    objective.to(device=fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile_network:
        objective.compile()


def check_machine(*, device: str, precision: str, sync_batchnorm: bool = False) -> None:
    """Let a run pass only if this machine can do it.

    Raises:
        UsageError: naming what is missing, and what works instead.
    """
    kind = resolved_device(device).partition(":")[0]
    refused = []
    if precision == "16-mixed" and kind == "cpu":
        refused.append("precision 16-mixed (use --precision bf16-mixed or 32-true)")
    if sync_batchnorm and kind != "cuda":
        refused.append("sync_batchnorm (use --no-sync-batchnorm: statistics of each rank alone)")
    if refused:
        raise UsageError(f"this run is on {kind}, which does not have {' and '.join(refused)}")


def resolved_device(device: str) -> str:
    """Return the device that is meant, for ``auto`` the best one that is here.

    Raises:
        UsageError: if there is no such device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, number = device.partition(":")
    valid = [
        name
        for name, available in (
            ("cpu", True),
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
        )
        if available
    ]
    if kind not in valid:
        raise UsageError(f"device {device!r} is not here: use {', '.join(valid)} or auto")
    last = torch.cuda.device_count() - 1 if kind == "cuda" else 0
    if colon and not (number.isdecimal() and int(number) <= last):
        known = kind if last == 0 else f"{kind}, or {kind}:0 to {kind}:{last}"
        raise UsageError(f"device {device!r} is not here: use {known}")
    return device
