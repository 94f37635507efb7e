"""SwAV against its steps in plain loops, and what it keeps from step to step."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swav.data.batch import Batch
from swav.engine.loop import fit
from swav.engine.objective import Clock, TrainingFacts
from swav.engine.optim import OptimConfig
from swav.methods.swav import SwAV, SwAVConfig
from swav.nn.heads import HeadConfig

FEATURES, EMBED, BATCH = 6, 8, 12
TWO = ((8, 8), (8, 8))
MANY = ((8, 8), (8, 8), (5, 6), (5, 6), (7, 6), (7, 6))  # equal width, another height


class Network(nn.Module):
    """A convolution, BatchNorm if asked for, and the mean over places."""

    def __init__(self, *, batchnorm: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, FEATURES, 3)
        self.norm = nn.BatchNorm2d(FEATURES) if batchnorm else nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        return self.norm(self.convolution(pictures)).tanh().mean(dim=(2, 3))


def swav(*, batchnorm: bool = True, num_images: int = 1000, batch: int = BATCH, **changes) -> SwAV:
    torch.manual_seed(0)
    options = {
        "num_prototypes": (7,),
        "head": HeadConfig(hidden_dim=10, embed_dim=EMBED, batchnorm=batchnorm),
        "freeze_steps": 0,
        **changes,
    }
    network = Network(batchnorm=batchnorm)
    return SwAVConfig(**options).build(
        network, TrainingFacts(feature_dim=FEATURES, num_images=num_images, global_batch=batch)
    )


def batches_of(num: int, sizes=TWO, *, batch: int = BATCH, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(num):
        views = (torch.randn(batch, 3, *size, generator=generator) for size in sizes)
        made.append(Batch(tuple(views), 2, torch.arange(batch)))
    return made


def batch_of(sizes=TWO, *, batch: int = BATCH, seed: int = 0) -> Batch:
    return batches_of(1, sizes, batch=batch, seed=seed)[0]


def clock_of(step: int = 0, *, steps_per_epoch: int = 4, warmup_steps: int = 0) -> Clock:
    start = Clock(
        step=0,
        epoch=0,
        steps_per_epoch=steps_per_epoch,
        total_steps=1000,
        images=0,
        warmup_steps=warmup_steps,
    )
    return start.at(step, global_batch=BATCH)


def train(objective: SwAV, batches: list[Batch], *, step: int = 0, accumulate: int = 1, **clock):
    """Walk the loop with momentum and decay, as a run does."""
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    return fit(objective, batches, optimizer, clock_of(step, **clock), accumulate=accumulate)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def transport(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    codes = np.exp(scores / epsilon).T
    codes /= codes.sum()
    for _ in range(iterations):
        codes /= codes.sum(axis=1, keepdims=True) * len(codes)
        codes /= codes.sum(axis=0, keepdims=True) * codes.shape[1]
    return (codes * codes.shape[1]).T


@torch.no_grad()
def embedded(objective: SwAV, views: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Return the unit embeddings of each view, by float64 copies of the networks."""
    backbone = copy.deepcopy(objective.backbone).double().train()
    head = copy.deepcopy(objective.projector).double().train()
    features, start = [], 0
    while start < len(views):
        end = start
        while end < len(views) and views[end].shape == views[start].shape:
            end += 1
        features.append(backbone(torch.cat(views[start:end]).double()))
        start = end
    rows = head(torch.cat(features)).numpy()
    return [unit(rows[view * BATCH : (view + 1) * BATCH]) for view in range(len(views))]


def plain_loss(objective: SwAV, batch: Batch, queues: list[np.ndarray] | None = None) -> float:
    """FACTS 3.2, items 2 to 5, for every head: one loop a sum."""
    config = objective.config
    embeddings = embedded(objective, batch.views)
    num_views = len(batch.views)
    by_head = []
    for weight in objective.prototypes.parameters():
        prototypes = unit(weight.detach().double().numpy())
        over_targets = 0.0
        for target in range(batch.num_targets):
            rows = embeddings[target]
            if queues is not None:
                rows = np.concatenate([queues[target], rows])
            codes = transport(rows @ prototypes.T, config.epsilon, config.iterations)[-BATCH:]
            over_views = 0.0
            for view in range(num_views):
                if view == target:
                    continue
                cross_entropy = 0.0
                for row in range(BATCH):
                    logits = embeddings[view][row] @ prototypes.T / config.temperature
                    log_softmax = logits - np.log(np.exp(logits).sum())
                    cross_entropy -= (codes[row] * log_softmax).sum()
                over_views += cross_entropy / BATCH
            over_targets += over_views / (num_views - 1)
        by_head.append(over_targets / batch.num_targets)
    return float(np.mean(by_head))


@pytest.mark.parametrize("sizes", [TWO, MANY])
@pytest.mark.parametrize("num_prototypes", [(7,), (7, 5, 9)])
@pytest.mark.parametrize("queue", [False, True])
def test_the_loss_is_that_of_the_reference(sizes, num_prototypes, queue):
    objective = swav(num_prototypes=num_prototypes, queue_length=24 if queue else 0)
    queues = None
    if queue:
        generator = np.random.default_rng(0)
        queues = [unit(generator.normal(size=(24, EMBED))) for _ in range(2)]
        rows = torch.from_numpy(np.stack(queues)).float()
        objective.queue.set_extra_state({"rows": rows})
    batch = batch_of(sizes)
    expected = plain_loss(objective, batch, queues)
    objective.before_step(clock_of())
    assert objective(batch, clock_of()).loss.item() == pytest.approx(expected, abs=1e-5)


def test_the_loss_after_some_steps_and_a_queue_that_filled_itself():
    objective = swav(queue_length=24, queue_start_epoch=0)
    batches = batches_of(6, MANY)
    queues: list[list[np.ndarray]] = [[], []]
    for number, batch in enumerate(batches):
        embeddings = embedded(objective, batch.views)
        full = number >= 2
        expected = plain_loss(
            objective, batch, [np.concatenate(rows) for rows in queues] if full else None
        )
        _, output = next(train(objective, [batch], step=number))
        assert output.loss.item() == pytest.approx(expected, abs=1e-5)
        for target in range(2):
            queues[target] = [embeddings[target], *queues[target]][:2]
            found = objective.queue.rank_rows(target)
            np.testing.assert_allclose(found, np.concatenate(queues[target]), atol=1e-5)


def codes_of(objective: SwAV, batch: Batch, step: int = 0) -> Tensor:
    """Return the codes of the only head, target view by target view."""
    (prepared,) = objective.with_targets([batch], clock_of(step))
    (codes,) = prepared.targets
    return codes


def test_codes_come_from_the_targets_alone():
    objective = swav(batchnorm=False)
    objective.before_step(clock_of())
    batch = batch_of(MANY)
    codes = codes_of(objective, batch)
    assert len(codes) == 2
    changed = (*batch.views[:2], *(view + 1 for view in batch.views[2:]))
    for one, other in zip(codes, codes_of(objective, batch._replace(views=changed)), strict=True):
        assert torch.equal(one, other)
    changed = (batch.views[0] + 1, *batch.views[1:])
    other = codes_of(objective, batch._replace(views=changed))
    assert not torch.equal(codes[0], other[0])
    assert torch.equal(codes[1], other[1])


def gradients(objective: SwAV, batch: Batch) -> dict[str, Tensor]:
    objective.zero_grad()
    objective.before_step(clock_of())
    objective(batch, clock_of()).loss.backward()
    return {name: weight.grad.clone() for name, weight in objective.named_parameters()}


def test_no_gradient_flows_through_the_codes():
    objective = swav(batchnorm=False)
    batch = batch_of(MANY)
    objective.before_step(clock_of())
    codes = codes_of(objective, batch)
    own = gradients(objective, batch)
    given = gradients(objective, batch._replace(targets=(codes,)))
    for name, gradient in own.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, given[name], rtol=1e-5, atol=1e-7)


def test_making_codes_leaves_the_statistics_alone():
    objective = swav()
    before = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    objective.with_targets(batches_of(2), clock_of())
    for name, buffer in objective.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("queue", [False, True])
@pytest.mark.parametrize(("parts", "part"), [(3, 4), (2, 6), (12, 1)])
def test_micro_batches_add_up_to_the_whole_batch(parts, part, queue):
    whole = batch_of(MANY)
    split = [
        Batch(tuple(view.split(part)[place] for view in whole.views), 2, whole.indices[:part])
        for place in range(parts)
    ]
    results = []
    for batches in ([whole], split):
        objective = swav(batchnorm=False, queue_length=24 if queue else 0, queue_start_epoch=0)
        if queue:
            rows = F.normalize(torch.randn(2, 24, EMBED, generator=torch.manual_seed(1)), dim=2)
            objective.queue.set_extra_state({"rows": rows})
        optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
        start = {name: weight.detach().clone() for name, weight in objective.named_parameters()}
        for name in start:
            if name.startswith("prototypes"):
                start[name] = F.normalize(start[name], dim=1)
        steps = fit(objective, batches, optimizer, clock_of(), accumulate=len(batches))
        clock, output = next(steps)
        assert clock.images == BATCH
        moved = {
            name: start[name] - weight.detach() for name, weight in objective.named_parameters()
        }
        results.append((output, moved, objective.queue.get_extra_state()["rows"]))
    (one, gradient, rows), (other, other_gradient, other_rows) = results
    torch.testing.assert_close(other.loss, one.loss, rtol=0, atol=1e-5)
    for name in gradient:
        torch.testing.assert_close(other_gradient[name], gradient[name], rtol=0, atol=1e-5)
    torch.testing.assert_close(other_rows, rows, rtol=0, atol=1e-5)
    for name in ("code_entropy", "loss_floor", "ln_k"):
        torch.testing.assert_close(other.metrics[name], one.metrics[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_frozen_prototypes_keep_every_bit(optimizer):
    """No gradient, no decay, no momentum; and the first free step has no past."""
    objective = swav(freeze_steps=4, num_prototypes=(7, 40))
    config = OptimConfig(optimizer=optimizer, learning_rate=0.5, weight_decay=0.1)
    built = config.build(objective)
    objective.prototypes.normalise()
    start = [weight.detach().clone() for weight in objective.prototypes.parameters()]
    network = objective.backbone.convolution.weight
    for clock, _ in fit(objective, batches_of(6), built, clock_of()):
        frozen = clock.step <= 4
        for weight, before in zip(objective.prototypes.parameters(), start, strict=True):
            assert torch.equal(weight, before) == frozen
            assert (weight not in built.state) == frozen
    assert network in built.state


def test_prototypes_are_unit_vectors_at_every_forward():
    objective = swav(num_prototypes=(7, 5))
    lengths: list[Tensor] = []

    def measure(prototypes: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        lengths.extend(weight.detach().norm(dim=1) for weight in prototypes.parameters())
        lengths.append(inputs[0].detach().norm(dim=1))

    objective.prototypes.register_forward_pre_hook(measure)
    list(train(objective, batches_of(6), accumulate=2))
    assert len(lengths) == 3 * 3 * 4  # two heads and the embeddings, for codes and for losses
    torch.testing.assert_close(torch.cat(lengths), torch.ones(sum(map(len, lengths))))
    after = next(objective.prototypes.parameters()).norm(dim=1)
    assert (after - 1).abs().max() > 1e-4  # those after a step are not, as in the reference


@pytest.mark.parametrize(
    ("config", "step", "hard"),
    [
        ({}, 0, False),
        ({"codes": "hard"}, 0, True),
        ({"codes": "hard"}, 500, True),
        ({"hard_steps": 3}, 0, True),
        ({"hard_steps": 3}, 2, True),
        ({"hard_steps": 3}, 3, False),
    ],
)
def test_hard_codes(config, step, hard):
    soft, objective = swav(), swav(**config)
    for each in (soft, objective):
        each.before_step(clock_of())
    expected = codes_of(soft, batch_of())
    found = codes_of(objective, batch_of(), step)
    for codes, before in zip(found, expected, strict=True):
        if hard:
            assert torch.equal(codes, F.one_hot(before.argmax(dim=1), 7).float())
        else:
            assert torch.equal(codes, before)


@pytest.mark.parametrize(
    ("start", "warmup", "freeze", "first"),
    [
        (0, 0, 0, 0),
        (2, 0, 0, 2),
        (1, 11, 11, 1),
        ("auto", 0, 0, 0),
        ("auto", 3, 0, 1),
        ("auto", 4, 0, 1),
        ("auto", 4, 5, 2),
        ("auto", 9, 5, 3),
    ],
)
def test_the_queue_starts_with_its_epoch(start, warmup, freeze, first):
    """Epochs have four steps; auto is the first epoch after warm-up and freeze."""
    objective = swav(queue_length=24, queue_start_epoch=start, freeze_steps=freeze)
    num_rows = []
    for _ in train(objective, batches_of(16), warmup_steps=warmup):
        num_rows.append(objective.queue.get_extra_state()["rows"].shape[1])
    expected = [min(max(step + 1 - 4 * first, 0) * BATCH, 24) for step in range(16)]
    assert num_rows == expected


def test_no_queue_keeps_nothing():
    objective = swav()
    list(train(objective, batches_of(3)))
    assert objective.queue.get_extra_state()["rows"].numel() == 0


def test_saved_and_restored_it_goes_on_bit_for_bit():
    batches = batches_of(6)
    objective = swav(queue_length=24, queue_start_epoch=0, ema_momentum=0.9)
    list(train(objective, batches[:3]))
    other = swav(queue_length=24, queue_start_epoch=0, ema_momentum=0.9)
    other.load_state_dict(copy.deepcopy(objective.state_dict()))
    for each in (objective, other):
        each.outputs = [output for _, output in train(each, batches[3:], step=3)]
    for one, two in zip(objective.outputs, other.outputs, strict=True):
        assert torch.equal(one.loss, two.loss)
        assert all(torch.equal(one.metrics[name], two.metrics[name]) for name in one.metrics)
    assert torch.equal(objective.queue.rank_rows(1), other.queue.rank_rows(1))


@pytest.mark.parametrize(
    ("prototypes", "images", "batch", "length"),
    [
        ((300,), 100_000, 64, 320),  # enough for one row a prototype
        ((300, 500), 100_000, 64, 512),  # of the largest head
        ((300,), 100_000, 300, 0),  # the batch is enough
        ((300,), 100_000, 512, 0),
        ((300,), 400, 64, 192),  # at most half the data
        ((300,), 100, 64, 0),
    ],
)
def test_the_automatic_length_of_the_queue(prototypes, images, batch, length):
    config = SwAVConfig(num_prototypes=prototypes, queue_length="auto")
    assert (
        config.resolved_queue_length(
            TrainingFacts(feature_dim=1, num_images=images, global_batch=batch)
        )
        == length
    )


@pytest.mark.parametrize(
    ("length", "tries"), [(100, "64 or 128"), (10, "0 or 64"), (3841, "3840 or")]
)
def test_a_queue_of_half_batches_is_refused(length, tries):
    with pytest.raises(
        ValueError, match=rf"queue_length {length} must be a multiple .*try {tries}"
    ):
        SwAVConfig(queue_length=length).resolved_queue_length(
            TrainingFacts(feature_dim=1, num_images=1000, global_batch=64)
        )


def test_far_too_few_pictures_for_the_prototypes_are_refused():
    with pytest.raises(
        ValueError, match=r"batch 12 \+ queue 0 share 200 prototypes.*prototypes 192"
    ):
        swav(num_prototypes=(200,))
    assert swav(num_prototypes=(200,), queue_length=12).queue.length == 12
    assert swav(num_prototypes=(192,)).queue.length == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_prototypes": ()}, "every head needs at least 2"),
        ({"num_prototypes": (300, 1)}, "every head needs at least 2"),
        ({"temperature": 0.0}, r"temperature 0\.0 must be positive"),
        ({"epsilon": -0.05}, r"epsilon -0\.05 must be positive"),
        ({"ema_momentum": 1.0}, r"ema_momentum 1\.0 must be between 0 and 1"),
        ({"ema_momentum": 0.0}, r"ema_momentum 0\.0 must be between 0 and 1"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        SwAVConfig(**wrong)


class Flat(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1)


def planted(num_prototypes: tuple[int, ...] = (8,), **changes) -> SwAV:
    """Return an objective whose pictures are embeddings and whose prototypes are the axes."""
    config = SwAVConfig(
        num_prototypes=num_prototypes, head=HeadConfig(embed_dim=8), freeze_steps=99, **changes
    )
    objective = config.build(Flat(), TrainingFacts(feature_dim=8, num_images=100, global_batch=4))
    objective.projector = nn.Identity()
    for weight, number in zip(objective.prototypes.parameters(), num_prototypes, strict=True):
        with torch.no_grad():
            weight.copy_(torch.eye(8)[:number])
    return objective


def pictures_at(*axes: int, views: int = 2) -> Batch:
    view = torch.eye(8)[list(axes)][:, :, None, None]
    return Batch((view,) * views, 2, torch.arange(len(axes)))


def test_prototypes_used_are_those_chosen_within_an_epoch():
    objective = planted()
    clock = clock_of(steps_per_epoch=3)
    chosen = [(0, 1), (2, 2), (2, 2), (5, 5), (5, 5), (5, 5), (0, 7)]
    recent = [{0, 1}, {0, 1, 2}, {0, 1, 2}, {2, 5}, {2, 5}, {5}, {5, 0, 7}]
    for step, (axes, expected) in enumerate(zip(chosen, recent, strict=True)):
        output = objective(pictures_at(*axes), clock.at(step, global_batch=2))
        assert output.metrics["prototypes_used"].item() == pytest.approx(len(expected) / 8)


def test_prediction_views_use_no_prototype():
    objective = planted()
    first, second = pictures_at(0, 1), pictures_at(5, 6)
    batch = first._replace(views=(*first.views, second.views[0]))
    used = objective(batch, clock_of()).metrics["prototypes_used"]
    assert used.item() == pytest.approx(2 / 8)


def test_code_entropy_and_floor_of_planted_codes():
    objective = planted((8, 4))
    uniform, certain = torch.full((2, 8), 1 / 8), torch.eye(8)[:2]
    halves = torch.tensor([[0.5, 0.5, 0, 0]] * 2)
    targets = torch.stack([uniform, certain]), torch.stack([halves, halves])
    metrics = objective(pictures_at(0, 1)._replace(targets=targets), clock_of()).metrics
    first, second = math.log(8) / 2, math.log(2)  # of each head, the mean over both targets
    assert metrics["loss_floor"].item() == pytest.approx((first + second) / 2)
    assert metrics["ln_k"].item() == pytest.approx((math.log(8) + math.log(4)) / 2)
    expected = (first / math.log(8) + second / math.log(4)) / 2
    assert metrics["code_entropy"].item() == pytest.approx(expected)


def test_the_loss_is_above_its_floor_and_collapse_is_ln_k():
    objective = swav()
    for _, output in train(objective, batches_of(3)):
        assert output.loss >= output.metrics["loss_floor"]
    collapsed = planted()
    same = Batch((torch.ones(6, 8, 1, 1),) * 2, 2, torch.arange(6))
    output = collapsed(same, clock_of())
    for value in (output.loss, output.metrics["loss_floor"], output.metrics["ln_k"]):
        assert value.item() == pytest.approx(math.log(8), abs=1e-5)
    assert output.metrics["code_entropy"].item() == pytest.approx(1, abs=1e-6)


def test_the_moving_average_follows_the_backbone():
    objective = swav(ema_momentum=0.9)
    expected = [weight.detach().clone() for weight in objective.backbone.parameters()]
    for _ in train(objective, batches_of(4)):
        weights = [weight.detach().clone() for weight in objective.backbone.parameters()]
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, weights, strict=True)]
    assert objective.encoder is not objective.backbone
    for found, value in zip(objective.encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(found, value)
    norm = objective.backbone.norm
    assert torch.equal(objective.encoder.norm.running_mean, norm.running_mean)


def test_without_an_average_the_backbone_is_the_encoder():
    objective = swav()
    assert objective.encoder is objective.backbone


def test_clusters_of_a_picture_do_not_depend_on_the_others():
    objective = swav(num_prototypes=(7, 5))
    list(train(objective, batches_of(3)))
    objective.eval()
    features = torch.randn(20, FEATURES)
    whole = objective.cluster(features)
    assert whole.shape == (20, 7)
    alone = torch.cat([objective.cluster(row[None]) for row in features])
    torch.testing.assert_close(whole, alone)
    head = copy.deepcopy(objective.projector).double()
    embeddings = unit(head(features.double()).detach().numpy())
    prototypes = unit(next(objective.prototypes.parameters()).detach().double().numpy())
    odds = np.exp(embeddings @ prototypes.T / 0.1)
    np.testing.assert_allclose(whole, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_head_as_configured():
    config = SwAVConfig(num_prototypes=(10, 20), head=HeadConfig(hidden_dim=0, embed_dim=3))
    objective = config.build(Flat(), TrainingFacts(feature_dim=5, num_images=100, global_batch=10))
    assert objective.projector.weight.shape == (3, 5)
    weights = [tuple(weight.shape) for weight in objective.prototypes.parameters()]
    assert weights == [(10, 3), (20, 3)]
