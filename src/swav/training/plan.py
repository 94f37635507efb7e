"""What a training is going to do, in what time and memory: measured on a few pictures."""

import shlex
import sys
import time
from collections.abc import Collection

import torch
from torch import Tensor, nn

from swav.data.batch import AnyBatch, FeatureBatch
from swav.data.eval_transform import EvalTransform
from swav.data.feature_loader import NUM_VIEWS
from swav.data.loader import StepViews, readable
from swav.data.sources.pictures import DataFacts, Pictures
from swav.engine import Clock, Objective
from swav.engine.launch import is_gpu
from swav.evals.harness.extract import BATCH_SIZE, network_encoder
from swav.recipes import explain
from swav.recipes.auto import HEAD_UP_TO
from swav.recipes.start_network import LITE0, RANDOM, is_published
from swav.recipes.train_config import TrainConfig
from swav.training.forecast import forecast
from swav.training.networks import build_objective, check_sizes, transform_of
from swav.training.start import StartWeights

PROBE_PIXELS = 500_000
"""Of the views that a plan is measured on: tens of small pictures, or a few large ones."""


def print_plan(
    config: TrainConfig,
    facts: DataFacts,
    pictures: Pictures,
    *,
    start: StartWeights | None = None,
    allow_factory: Collection[str] = (),
) -> None:
    """Print what a training would do, how long it would take here and in how much memory.

    Measures a forward and backward pass over a few pictures; nothing is written.
    """
    objective = build_objective(
        config,
        num_images=facts.num_images,
        weights=None if start is None else start.tensors,
        allow_factory=allow_factory,
        to_train=True,
    )
    check_sizes(config, objective)
    cost_of = _cost_on_features if config.tuning.part == "head" else _cost_on_views
    lines = [
        *explain(config, facts),
        *([] if start is None else [start.summary]),
        *_better_start(config, facts),
        f"{_num_weights(objective) / 1e6:.2f} million parameters, method {config.method.name}",
        *cost_of(config, facts, objective, pictures),
        *([forecast(facts.num_images)] if is_published(config.init) else []),
    ]
    print("\n".join(lines), file=sys.stdout)


def _cost_on_views(
    config: TrainConfig, facts: DataFacts, objective: Objective, pictures: Pictures
) -> list[str]:
    """Return the lines on steps, time and memory of a training on views of pictures."""
    number = _probe_pictures(config, facts)
    seconds, activations = _probe(config, objective, pictures, number)
    micro_batch = config.optim.batch_size // config.optim.accumulate
    memory = _memory_of_weights(config, objective) + activations * micro_batch
    num_views = config.views.num_views
    duration = _duration(seconds * _total_steps(config, facts) * config.optim.batch_size)
    return [
        f"{_steps(config, facts)}, {num_views} view{'s' * (num_views > 1)} each",
        f"time on this machine's CPU: about {duration} "
        f"({1 / seconds:.0f} pictures/s in a probe of {number}, loading not counted)",
        _memory_line(memory, facts),
    ]


def _cost_on_features(
    config: TrainConfig, facts: DataFacts, objective: Objective, pictures: Pictures
) -> list[str]:
    """Return the same lines of a training on features, which one pass of the network makes."""
    transform = transform_of(config)
    _, height, width = transform.input_size
    number = max(2, min(PROBE_PIXELS // (height * width), facts.num_images))
    a_picture, largest = _probe_pass(objective.encoder, transform, pictures, number)
    batch = _random_features(config, objective)
    a_step, activations = _measured(objective, batch)
    steps = _total_steps(config, facts) * config.optim.accumulate
    features = 4 * facts.num_images * batch.views[0].shape[1]
    # the search for neighbours takes a copy of the features
    working = max(largest * min(BATCH_SIZE, facts.num_images), activations + features)
    memory = _memory_of_weights(config, objective) + features + working
    return [
        f"one pass of the frozen network at {height}x{width}, whose features are kept "
        f"({features / 1e6:.1f} MB); then {_steps(config, facts)}, each beside a near one",
        f"time on this machine's CPU: about {_duration(a_picture * facts.num_images)} for the pass "
        f"({1 / a_picture:.0f} pictures/s in a probe of {number}, reading not counted) and "
        f"{_duration(a_step * steps)} for the steps",
        _memory_line(memory, facts),
    ]


def _total_steps(config: TrainConfig, facts: DataFacts) -> int:
    return facts.num_images // config.optim.batch_size * config.epochs


def _steps(config: TrainConfig, facts: DataFacts) -> str:
    return (
        f"{config.epochs} epochs of {facts.num_images // config.optim.batch_size} steps = "
        f"{_total_steps(config, facts)} steps of {config.optim.batch_size} pictures"
    )


def _memory_line(memory: float, facts: DataFacts) -> str:
    return (
        f"memory for training, one rank: about {memory / 2**30:.1f} GiB; pictures in memory: "
        f"{'yes' if facts.in_memory else 'no'}"
    )


def _num_weights(objective: Objective, *, learned: bool = False) -> int:
    weights = [each for each in objective.parameters() if each.requires_grad or not learned]
    return sum(weight.numel() for weight in weights)


def _memory_of_weights(config: TrainConfig, objective: Objective) -> int:
    """Return the bytes of all weights, and of gradients and averages of those that learn."""
    slots = 2 if config.optim.optimizer == "adamw" else 1
    return 4 * (_num_weights(objective) + _num_weights(objective, learned=True) * (1 + slots))


def _better_start(config: TrainConfig, facts: DataFacts) -> list[str]:
    """Return a line on published weights where a run from random ones would do worse."""
    few = facts.num_images <= HEAD_UP_TO and not is_gpu(config.device)
    if config.init != RANDOM or not few or config.data.channels != 3:
        return []
    command = shlex.join(["swav", "train", config.data.data, "--init", LITE0])
    return [
        "with so few pictures on a CPU the features of published weights, frozen, were better than "
        f"trained ones, and prototypes learn from them in minutes (docs/log.md): {command}"
    ]


def _probe_pictures(config: TrainConfig, facts: DataFacts) -> int:
    pixels = sum(group.count * group.size[0] * group.size[1] for group in config.views.groups)
    return max(2, min(PROBE_PIXELS // pixels, config.optim.batch_size, facts.num_images))


def _probe(
    config: TrainConfig, objective: Objective, pictures: Pictures, number: int
) -> tuple[float, float]:
    """Return seconds and bytes of activations, both for each of ``number`` pictures."""
    views = StepViews(
        pictures,
        config.views,
        global_batch=number,
        seed=config.seed,
        pretext=config.method.pretext,
    )
    seconds, num_bytes = _measured(objective, views.batch(0))
    return seconds / number, num_bytes / number


def _probe_pass(
    network: nn.Module, transform: EvalTransform, pictures: Pictures, number: int
) -> tuple[float, float]:
    """Return seconds and bytes at a time of a pass without gradients, both for each picture."""
    _, shown = readable(pictures, range(number))
    encode = network_encoder(network, transform, device=next(network.parameters()).device)
    num_bytes = 0

    def count(_module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal num_bytes
        tensors = [each for each in (*inputs, output) if isinstance(each, Tensor)]
        num_bytes = max(num_bytes, sum(tensor.nbytes for tensor in tensors))

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    encode(shown)
    for hook in hooks:
        hook.remove()
    started = time.monotonic()
    encode(shown)
    return (time.monotonic() - started) / len(shown), num_bytes / len(shown)


def _random_features(config: TrainConfig, objective: Objective) -> FeatureBatch:
    rows = config.optim.batch_size // config.optim.accumulate
    feature_dim = int(objective.encoder.num_features)  # type: ignore[arg-type]
    views = tuple(torch.randn(rows, feature_dim) for _ in range(NUM_VIEWS))
    return FeatureBatch(views, NUM_VIEWS, torch.arange(rows))


def _measured(objective: Objective, batch: AnyBatch) -> tuple[float, int]:
    """Return seconds of a forward and backward pass, and bytes of its activations."""
    clock = Clock(step=0, epoch=0, steps_per_epoch=1, total_steps=1, images=0)
    num_bytes = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal num_bytes
        num_bytes += tensor.numel() * tensor.element_size()
        return tensor

    objective.prepare([batch])
    objective.before_step(clock)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        objective(batch, clock).loss.backward()
    started = time.monotonic()
    objective(batch, clock).loss.backward()
    return time.monotonic() - started, num_bytes


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
