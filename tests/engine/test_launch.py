"""Device, ranks, threads, and how the network is laid out."""

import os

import pytest
import torch
from torch import nn
from torch.distributed import BackendConfig

from swav.config import UsageError
from swav.engine import launch as launching
from swav.engine.launch import available_cores, check_machine, launch, prepare_network


def test_one_process_on_a_cpu():
    fabric = launch(device="cpu", threads=1)
    assert fabric.device.type == "cpu"
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert torch.get_num_threads() == 1


def test_all_cores_without_a_number_of_threads():
    assert available_cores() == len(os.sched_getaffinity(0))
    launch(device="cpu")
    assert torch.get_num_threads() == available_cores()


@pytest.mark.parametrize("device", ["tpu", "cuda7x"])
def test_an_unknown_device_is_named(device):
    with pytest.raises(UsageError, match=rf"device '{device}' is not here: use cpu.* or auto"):
        launch(device=device)


def test_a_group_of_gpus_also_reduces_tensors_of_the_cpu():
    backends = BackendConfig(launching.GPU_BACKENDS).get_device_backend_map()  # type: ignore[arg-type]
    assert backends == {"cpu": "gloo", "cuda": "nccl"}


def test_auto_takes_what_is_there(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert launching.resolved_device("auto") == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launching.resolved_device("cuda:1") == "cuda:1"
    for wrong in ("cuda:2", "cuda:-1", "cuda:", "cpu:5"):
        with pytest.raises(UsageError, match=f"device '{wrong}' is not here: use c"):
            launching.resolved_device(wrong)


def test_convolutions_are_laid_out_channels_last():
    fabric = launch(device="cpu", threads=1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    weight = network[0].weight
    prepare_network(network, fabric, sync_batchnorm=False, compile_network=False)
    assert network[0].weight is weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(network[1], nn.BatchNorm2d)


def test_what_this_machine_cannot_do_is_refused_with_what_it_can():
    with pytest.raises(UsageError, match=r"on cpu.*sync_batchnorm \(use --no-sync-batchnorm"):
        check_machine(device="cpu", precision="32-true", sync_batchnorm=True)
    with pytest.raises(UsageError, match=r"16-mixed \(use --precision bf16-mixed or 32"):
        check_machine(device="cpu", precision="16-mixed")
    with pytest.raises(UsageError, match="precision 16-mixed"):
        launch(device="cpu", precision="16-mixed")
    check_machine(device="cpu", precision="bf16-mixed")


def ranks_of(threads: int) -> tuple[int, int, int, str]:
    fabric = launch(device="cpu", threads=threads)
    used = torch.get_num_threads()
    torch.set_num_threads(1)
    return fabric.world_size, fabric.global_rank, used, type(fabric.strategy).__name__


@pytest.mark.ranks
def test_the_ranks_of_a_launcher_share_the_cores(run_on_ranks):
    answers = run_on_ranks(2, ranks_of, [0, 0])
    each = max(1, available_cores() // 2)
    assert answers == [(2, 0, each, "DDPStrategy"), (2, 1, each, "DDPStrategy")]
