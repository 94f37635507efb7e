"""Stopping at any step and going on is the same, bit for bit, as never having stopped."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from tiny import METHOD_CLASSES, TINY_METHODS, WITH_BATCHNORM, WITHOUT_BATCHNORM, tiny_config
from tiny import tiny_pictures as drawn_pictures
from torch import Tensor

from swav.engine import Clock, StepOutput, fit
from swav.methods import (
    BYOLConfig,
    DeepClusterConfig,
    MethodConfig,
    MoCoConfig,
    SeLaConfig,
    SwAVConfig,
)
from swav.nn.backbones import BackboneConfig
from swav.recipes.train_config import TrainConfig
from swav.run_folder.checkpoint import newest_checkpoint
from swav.training import run as train_module
from swav.training import session as session_module
from swav.training.run import StoppedBySignal, train
from swav.training.stop_signal import StopSignal

TOTAL_STEPS = 20
QUEUE_AND_AVERAGE = replace(
    TINY_METHODS[SwAVConfig], queue_length=32, queue_start_epoch=1, ema_momentum=0.9
)
DROPPING = BackboneConfig(
    name="convnext_atto", args={**WITHOUT_BATCHNORM.args, "drop_path_rate": 0.3}
)
NOT_TO_ONE_PIXEL = BackboneConfig(
    name="resnet10t", args={**WITH_BATCHNORM.args, "output_stride": 8}
)
"""On a CPU a convolution with a stride over one pixel leaves part of its gradient in bfloat16
unwritten (oneDNN in torch 2.14)."""

COPIES = ("backbone", "average.average", "target_backbone.average", "key_backbone.average")
"""Of the network in an objective, itself and its teachers."""

VARIANTS = {
    "queue, average, BatchNorm": tiny_config(method=QUEUE_AND_AVERAGE, backbone=WITH_BATCHNORM),
    "accumulation, queue, LARS, dropped paths": tiny_config(
        method=QUEUE_AND_AVERAGE,
        backbone=DROPPING,
        optim=replace(tiny_config().optim, optimizer="lars", learning_rate=0.5, accumulate=2),
    ),
}

State = dict[str, Tensor]
Uninterrupted = Callable[[str], tuple[Path, dict[int, State]]]


class StopAfter(StopSignal):
    """Stands in for the signals: asks to stop after some steps."""

    steps = TOTAL_STEPS
    done = 0

    @property
    def requested(self) -> bool:
        return StopAfter.done >= StopAfter.steps

    @staticmethod
    def counting(*given: Any, **settings: Any) -> Iterator[tuple[Clock, StepOutput]]:
        """Yield the steps of ``fit``, counted."""
        for each in fit(*given, **settings):
            StopAfter.done += 1
            yield each

    def __enter__(self) -> "StopAfter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def only_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave out what follows the training, and restore the number of threads."""
    monkeypatch.setattr(train_module, "write_outputs", lambda *_, **__: None)
    monkeypatch.setattr(session_module, "draw_views", lambda *_: None)
    monkeypatch.setattr(train_module, "StopSignal", StopAfter)
    monkeypatch.setattr(train_module, "fit", StopAfter.counting)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, State]]:
    """Collect what is saved after each step."""
    states: dict[int, State] = {}
    save = session_module.save_checkpoint

    def record(folder: Path, *, step: int, tensors: State, **settings: Any) -> Path:
        states[step] = {name: tensor.clone() for name, tensor in tensors.items()}
        return save(folder, step=step, tensors=tensors, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(session_module, "save_checkpoint", record)
        yield states


def run(config: TrainConfig, out: Path, steps: int, *, resume: bool) -> bool:
    """Train for some steps; return whether the run came to its end."""
    StopAfter.steps, StopAfter.done = steps, 0
    try:
        train(drawn_pictures(), config=config, out=out, resume=resume)
    except StoppedBySignal:
        return False
    return True


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """Train a variant without a stop; return its folder and what was saved after each step."""

    @cache
    def whole(variant: str) -> tuple[Path, dict[int, State]]:
        folder = tmp_path_factory.mktemp("whole") / "run"
        with pytest.MonkeyPatch.context() as patch, recorded(patch) as states:
            assert run(VARIANTS[variant], folder, TOTAL_STEPS + 1, resume=False)
        return folder, states

    return whole


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def assert_same(one: State, other: State, where: str) -> None:
    assert one.keys() == other.keys(), where
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), f"{where}: {name}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_after_every_single_step_changes_nothing(
    variant: str, uninterrupted: Uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session does one step from what the last one saved, so all 20 places are tried."""
    config = VARIANTS[variant]
    folder, whole = uninterrupted(variant)
    with recorded(monkeypatch) as pieces:
        ends = [run(config, tmp_path / "pieces", 1, resume=step > 0) for step in range(TOTAL_STEPS)]
    assert ends == [False] * (TOTAL_STEPS - 1) + [True]
    assert sorted(whole) == sorted(pieces) == list(range(1, TOTAL_STEPS + 1))
    for step in whole:
        assert_same(whole[step], pieces[step], f"step {step}")
    assert losses(folder) == losses(tmp_path / "pieces")
    record = json.loads((tmp_path / "pieces" / "run.json").read_text())
    assert [resume["step"] for resume in record["resumes"]] == list(range(1, TOTAL_STEPS))


@pytest.mark.parametrize("method", METHOD_CLASSES, ids=lambda c: c.name)
def test_stopping_in_mixed_precision_changes_nothing(
    method: type[MethodConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(
        method=TINY_METHODS[method], backbone=NOT_TO_ONE_PIXEL, precision="bf16-mixed"
    )
    with recorded(monkeypatch) as whole:
        assert not run(config, tmp_path / "whole", 2, resume=False)
    with recorded(monkeypatch) as pieces:
        for _ in range(2):
            assert not run(config, tmp_path / "pieces", 1, resume=bool(pieces))
    assert sorted(whole) == sorted(pieces) == [1, 2]
    for step in whole:
        assert all(tensor.isfinite().all() for tensor in whole[step].values())
        assert_same(whole[step], pieces[step], f"step {step}")


def test_the_loss_scaler_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts so high here that it is halved at first, and grows again after two steps."""

    def scaled(**_: object) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**19, growth_interval=2)
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        return Fabric(accelerator="cpu", devices=1, plugins=[precision])

    monkeypatch.setattr(train_module, "launch", scaled)
    config = tiny_config(backbone=NOT_TO_ONE_PIXEL, method=QUEUE_AND_AVERAGE)
    with recorded(monkeypatch) as whole:
        assert not run(config, tmp_path / "whole", 8, resume=False)
    with recorded(monkeypatch) as pieces:
        for steps in (1, 6, 1):
            assert not run(config, tmp_path / "pieces", steps, resume=bool(pieces))
    scales = [whole[step]["scaler/scale"].item() for step in range(1, 9)]
    assert min(scales) < scales[0] == 2.0**18
    assert any(after > before for before, after in pairwise(scales))
    for step in whole:
        assert_same(whole[step], pieces[step], f"step {step}")


@pytest.mark.parametrize(
    "method", [cls for cls in METHOD_CLASSES if cls is not SwAVConfig], ids=lambda c: c.name
)
def test_stopping_within_and_between_epochs_changes_nothing(
    method: type[MethodConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps of four an epoch are as many as 6, 2 and 2: banks, queues, teachers and all."""
    config = tiny_config(method=TINY_METHODS[method], backbone=WITH_BATCHNORM, epochs=3)
    with recorded(monkeypatch) as whole:
        assert not run(config, tmp_path / "whole", 10, resume=False)
    with recorded(monkeypatch) as pieces:
        for steps in (6, 2, 2):
            assert not run(config, tmp_path / "pieces", steps, resume=bool(pieces))
    assert sorted(whole) == sorted(pieces) == list(range(1, 11))
    for step in whole:
        assert_same(whole[step], pieces[step], f"step {step}")
    assert losses(tmp_path / "whole") == losses(tmp_path / "pieces")


def test_loading_processes_may_differ_when_a_run_goes_on(
    uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    variant = "queue, average, BatchNorm"
    config, (folder, whole) = VARIANTS[variant], uninterrupted(variant)
    assert not run(replace(config, workers=2), tmp_path / "pieces", 6, resume=False)
    assert run(replace(config, workers=1), tmp_path / "pieces", TOTAL_STEPS, resume=True)
    found = newest_checkpoint(tmp_path / "pieces")
    assert found is not None
    assert_same(whole[TOTAL_STEPS], found.tensors, "at the end")
    assert losses(folder) == losses(tmp_path / "pieces")


@pytest.mark.parametrize(
    "method",
    [
        QUEUE_AND_AVERAGE,
        *(TINY_METHODS[cls] for cls in (BYOLConfig, MoCoConfig, DeepClusterConfig)),
    ],
    ids=lambda method: method.name,
)
def test_a_run_that_tunes_the_last_stages_keeps_the_others_and_can_be_stopped(
    method: MethodConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two of twenty steps the head learns alone; teachers keep what the network keeps."""
    torch.manual_seed(5)
    start = WITH_BATCHNORM.build().state_dict()
    torch.save(start, tmp_path / "start.pth")
    config = tiny_config(
        method=method,
        backbone=WITH_BATCHNORM,
        init=str(tmp_path / "start.pth"),
        tune="last:2",
        optim=replace(tiny_config().optim, warmup_epochs=0, weight_decay=0.1),
    )
    with recorded(monkeypatch) as whole:
        assert not run(config, tmp_path / "whole", 4, resume=False)
    with recorded(monkeypatch) as pieces:
        for steps in (1, 1, 2):
            assert not run(config, tmp_path / "pieces", steps, resume=bool(pieces))
    for step, state in whole.items():
        assert_same(state, pieces[step], f"step {step}")
        for name, tensor in start.items():
            last = name.startswith(("layer3.", "layer4.")) and not re.search(
                "running|tracked", name
            )
            copies = [f"model/{copy}.{name}" for copy in COPIES if f"model/{copy}.{name}" in state]
            assert f"model/backbone.{name}" in copies
            for key in copies:
                assert torch.equal(state[key], tensor) != (last and step > 2), (step, key)
    trained = {name for name in whole[4] if name.startswith("optimizer/backbone.")}
    assert all(name.startswith("optimizer/backbone.layer") for name in trained)
    assert trained
    assert not any(name.startswith("optimizer/backbone.") for name in whole[2])


HEAD_OPTIM = replace(tiny_config().optim, warmup_epochs=0, weight_decay=0.1)


@pytest.mark.parametrize(
    ("method", "accumulate"),
    [
        (QUEUE_AND_AVERAGE, 1),
        (QUEUE_AND_AVERAGE, 2),
        *((TINY_METHODS[cls], 1) for cls in (DeepClusterConfig, SeLaConfig)),
    ],
    ids=lambda value: value.name if isinstance(value, MethodConfig) else str(value),
)
def test_a_head_on_a_frozen_network_can_be_stopped_and_leaves_it_as_it_was(
    method: MethodConfig, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps are as many as 1, 5 and 4, also where the features have gone in between."""
    torch.manual_seed(5)
    start = WITH_BATCHNORM.build().state_dict()
    torch.save(start, tmp_path / "start.pth")
    config = tiny_config(
        method=method,
        backbone=WITH_BATCHNORM,
        init=str(tmp_path / "start.pth"),
        tune="head",
        optim=replace(HEAD_OPTIM, accumulate=accumulate),
    )
    with recorded(monkeypatch) as whole:
        assert not run(config, tmp_path / "whole", 10, resume=False)
    with recorded(monkeypatch) as pieces:
        for steps in (1, 5, 4):
            assert not run(config, tmp_path / "pieces", steps, resume=bool(pieces))
            shutil.rmtree(tmp_path / "pieces/features")
    assert sorted(whole) == sorted(pieces) == list(range(1, 11))
    for step, state in whole.items():
        assert_same(state, pieces[step], f"step {step}")
    for name, tensor in start.items():
        copies = [f"model/{copy}.{name}" for copy in COPIES if f"model/{copy}.{name}" in whole[10]]
        assert f"model/backbone.{name}" in copies
        for key in copies:
            assert torch.equal(whole[10][key], tensor), key
    assert not any(key.startswith("optimizer/backbone.") for key in whole[10])
    assert any(key.startswith("optimizer/projector.") for key in whole[10])
    assert losses(tmp_path / "whole") == losses(tmp_path / "pieces")


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(epochs=1)
    assert run(config, tmp_path / "run", TOTAL_STEPS, resume=False)
    with recorded(monkeypatch) as states:
        assert run(config, tmp_path / "run", TOTAL_STEPS, resume=True)
    assert not states
    assert json.loads((tmp_path / "run" / "run.json").read_text())["resumes"] == []
