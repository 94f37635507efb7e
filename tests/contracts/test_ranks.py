"""Two ranks are one rank: the same loss and the same gradient for the same global batch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from contracts.test_resume import TOTAL_STEPS, StopAfter
from forked import on_ranks
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from tiny import (
    BATCH_SIZE,
    METHOD_CLASSES,
    TINY_METHODS,
    WITH_BATCHNORM,
    tiny_config,
    tiny_facts,
    tiny_pictures,
)

from swav.data.loader import StepViews
from swav.engine import Clock, fit
from swav.engine.launch import launch
from swav.methods import SwAVConfig
from swav.run_folder.checkpoint import newest_checkpoint
from swav.training import run as train_module
from swav.training.run import StoppedBySignal

STEPS = 4
TINY = {cls.name: TINY_METHODS[cls] for cls in METHOD_CLASSES}
TUNED = replace(tiny_config().optim, optimizer="sgd", learning_rate=0.05, warmup_epochs=0)
CLOCK = Clock(step=0, epoch=0, steps_per_epoch=4, total_steps=STEPS, images=0)


def train(method: str, out: str, *, accumulate: int = 1, fabric: Fabric | None = None) -> None:
    """Train a few steps with a queue from the first on; save losses, gradients and weights."""
    config = TINY[method]
    if isinstance(config, SwAVConfig):
        config = replace(config, queue_length=BATCH_SIZE, queue_start_epoch=0, freeze_steps=0)
    torch.manual_seed(0)
    backbone = tiny_config().backbone.build(3)
    objective = config.build(backbone, tiny_facts(backbone))
    trained = {name: w for name, w in objective.named_parameters() if w.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.05)
    gradients: dict[str, torch.Tensor] = {}

    def keep(*_: object) -> None:
        for name, parameter in trained.items():
            assert parameter.grad is not None, name
            gradients[name] = parameter.grad.clone()

    optimizer.register_step_pre_hook(keep)
    views = StepViews(
        tiny_pictures(),
        tiny_config(method=config).views,
        global_batch=BATCH_SIZE,
        accumulate=accumulate,
        seed=0,
        pretext=config.pretext,
    )
    numbers = range(STEPS * accumulate)
    objective.prepare(views.batch(number) for number in range(4 * accumulate))
    steps = fit(
        objective,
        (views.batch(number) for number in numbers),
        optimizer,
        CLOCK,
        fabric=fabric,
        accumulate=accumulate,
    )
    losses = [float(output.loss) for _, output in steps]
    Path(f"{out}.json").write_text(json.dumps(losses))
    save_file({name: value.contiguous() for name, value in gradients.items()}, f"{out}.gradients")


@contextmanager
def one_of(rank: int, ranks: int, out: str) -> Iterator[None]:
    """Be one of several ranks, in the environment that torchrun makes."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update(GROUP_RANK="0", TORCHELASTIC_RUN_ID="test", GLOO_SOCKET_IFNAME="lo")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")  # asked for, never opened
    dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=ranks)
    yield
    dist.destroy_process_group()


def train_rank(rank: int, ranks: int, method: str, out: str, accumulate: int) -> None:
    """Do the same as one of several ranks."""
    with one_of(rank, ranks, out):
        fabric = launch(device="cpu", threads=1)
        train(method, f"{out}-{rank}", accumulate=accumulate, fabric=fabric)


def run_rank(rank: int, ranks: int, out: str, every: int, stop_after: int) -> None:
    """Do a whole run as one of several ranks, with BatchNorm; stop after some steps and go on."""
    config = tiny_config(
        backbone=WITH_BATCHNORM, epochs=2, save_every=every, evaluate_every=every % 2
    )
    train_module.write_outputs = lambda *_, **__: None
    StopAfter.steps = stop_after
    train_module.StopSignal, train_module.fit = StopAfter, StopAfter.counting
    with one_of(rank, ranks, out), suppress(StoppedBySignal):
        train_module.train(tiny_pictures(), config=config, out=out)
    if stop_after < TOTAL_STEPS:
        StopAfter.steps = TOTAL_STEPS
        with one_of(rank, ranks, f"{out}-again"):
            train_module.train(tiny_pictures(), config=config, out=out, resume=True)


def read(out: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return torch.tensor(json.loads(Path(f"{out}.json").read_text())), load_file(f"{out}.gradients")


@pytest.mark.ranks
@pytest.mark.parametrize(("method", "accumulate"), [*((name, 1) for name in TINY), ("swav", 2)])
def test_two_ranks_are_one(method: str, accumulate: int, tmp_path: Path) -> None:
    train(method, str(tmp_path / "one"))
    two = str(tmp_path / "two")
    on_ranks("contracts.test_ranks:train_rank", method, two, accumulate, ranks=2, folder=tmp_path)
    losses, gradients = read(str(tmp_path / "one"))
    assert len(losses) == STEPS
    for rank in range(2):
        losses_there, gradients_there = read(f"{two}-{rank}")
        torch.testing.assert_close(losses_there, losses, atol=1e-5, rtol=1e-4)
        assert gradients.keys() == gradients_there.keys()
        for name, gradient in gradients.items():
            rounding = 1e-6 + 5e-3 * gradient.abs().max().item()  # of float32, in four steps
            torch.testing.assert_close(gradients_there[name], gradient, atol=rounding, rtol=0)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_are_one_batch(accumulate: int, tmp_path: Path) -> None:
    train("swav", str(tmp_path / "one"))
    train("swav", str(tmp_path / "several"), accumulate=accumulate)
    losses, gradients = read(str(tmp_path / "one"))
    losses_there, gradients_there = read(str(tmp_path / "several"))
    torch.testing.assert_close(losses_there, losses, atol=1e-5, rtol=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_there[name], gradient, atol=1e-5, rtol=1e-4)


def tune_rank(
    rank: int, ranks: int, out: str, start: str, tune: str = "last:2", accumulate: int = 1
) -> None:
    """Do a run from weights, its last stages or its head alone, as one of several ranks."""
    optim = replace(TUNED, accumulate=accumulate)
    config = tiny_config(
        backbone=WITH_BATCHNORM, epochs=3, init=start, tune=tune, optim=optim, workers=0
    )
    train_module.write_outputs = lambda *_, **__: None
    with one_of(rank, ranks, out):
        train_module.train(tiny_pictures(), config=config, out=out)


@pytest.mark.ranks
def test_two_ranks_are_one_where_statistics_and_stages_stay(tmp_path: Path) -> None:
    """With BatchNorm, whose statistics are the same on all ranks here."""
    torch.manual_seed(5)
    start = WITH_BATCHNORM.build().state_dict()
    torch.save(start, tmp_path / "start.pth")
    ends = []
    for ranks in (1, 2):
        out = str(tmp_path / str(ranks))
        weights = str(tmp_path / "start.pth")
        on_ranks("contracts.test_ranks:tune_rank", out, weights, ranks=ranks, folder=tmp_path)
        checkpoint = newest_checkpoint(Path(out))
        assert checkpoint is not None
        assert checkpoint.step == 12
        ends.append(checkpoint.tensors)
    one, two = ends
    assert one.keys() == two.keys()
    for name, tensor in start.items():
        key = f"model/backbone.{name}"
        torch.testing.assert_close(two[key], one[key], atol=1e-4, rtol=1e-3)
        if not name.startswith(("layer3.", "layer4.")):
            assert torch.equal(two[key], tensor), name


@pytest.mark.ranks
def test_ranks_and_micro_batches_are_one_batch_on_features(tmp_path: Path) -> None:
    torch.manual_seed(5)
    start = WITH_BATCHNORM.build().state_dict()
    torch.save(start, tmp_path / "start.pth")
    ends = []
    for ranks, accumulate in ((1, 1), (2, 1), (1, 2)):
        out = str(tmp_path / f"{ranks}-{accumulate}")
        on_ranks(
            "contracts.test_ranks:tune_rank",
            out,
            str(tmp_path / "start.pth"),
            "head",
            accumulate,
            ranks=ranks,
            folder=tmp_path,
        )
        checkpoint = newest_checkpoint(Path(out))
        assert checkpoint is not None
        assert checkpoint.step == 12
        ends.append(checkpoint.tensors)
    one, *others = ends
    for other in others:
        assert one.keys() == other.keys()
        for name in one:
            if name.startswith("model/") and one[name].is_floating_point():
                torch.testing.assert_close(other[name], one[name], atol=1e-4, rtol=1e-3)
        for name, tensor in start.items():
            assert torch.equal(other[f"model/backbone.{name}"], tensor), name


@pytest.mark.ranks
def test_saving_evaluating_and_stopping_change_no_bit(tmp_path: Path) -> None:
    """A mean of BatchNorm's statistics over ranks is saved; each rank goes on with its own."""
    last = []
    for name, every, stop_after in (("once", 0, TOTAL_STEPS), ("often", 1, 3)):
        out = str(tmp_path / name)
        on_ranks("contracts.test_ranks:run_rank", out, every, stop_after, ranks=2, folder=tmp_path)
        checkpoint = newest_checkpoint(Path(out))
        assert checkpoint is not None
        assert checkpoint.step == 8
        last.append(checkpoint.tensors)
    once, often = last
    assert any(key.startswith("rank_statistics/") for key in once)
    assert once.keys() == often.keys()
    for key, value in once.items():
        assert torch.equal(value, often[key]), key
