"""What the other methods keep from step to step: clusters, keys, teachers, banks."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swav.data.batch import Batch
from swav.engine import Clock, Objective, ObjectiveConfig, TrainingFacts, fit
from swav.engine.optim import OptimConfig
from swav.methods import (
    BarlowConfig,
    BYOLConfig,
    DeepClusterConfig,
    InstDiscConfig,
    MoCoConfig,
    SeLaConfig,
    SwAVConfig,
    VICRegConfig,
)
from swav.nn.heads import EXPANDER, HeadConfig
from swav.ops.assign import Prior
from swav.ops.losses import (
    bootstrap_distance,
    covariance_penalty,
    cross_correlation,
    info_nce,
    noise_contrast,
    variance_hinge,
)

FEATURES, BATCH, IMAGES = 6, 8, 30
CLOCK = Clock(step=0, epoch=0, steps_per_epoch=3, total_steps=12, images=0)


class Network(nn.Module):
    def __init__(self, *, batchnorm: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, FEATURES, 3)
        self.norm = nn.BatchNorm2d(FEATURES) if batchnorm else nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        return self.norm(self.convolution(pictures)).tanh().mean(dim=(2, 3))


def built(config: ObjectiveConfig, *, batchnorm: bool = False) -> Any:
    torch.manual_seed(0)
    network = Network(batchnorm=batchnorm)
    return config.build(
        network, TrainingFacts(feature_dim=FEATURES, num_images=IMAGES, global_batch=BATCH)
    )


def batch_of(step: int, num_targets: int = 2) -> Batch:
    """Return pictures 8 x step to 8 x step + 7, in three views, the last a small one."""
    generator = torch.Generator().manual_seed(step)
    sizes = (8, 8, 6)
    views = tuple(torch.randn(BATCH, 3, size, size, generator=generator) for size in sizes)
    return Batch(views, num_targets, (torch.arange(BATCH) + BATCH * step) % 24)


def train(objective: Objective, steps: int) -> list[float]:
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    batches = (batch_of(step) for step in range(steps))
    return [float(output.loss) for _, output in fit(objective, batches, optimizer, CLOCK)]


def test_each_view_may_have_batchnorm_statistics_of_its_own():
    """As one pass after another, in the order of the views, would have them."""
    head = HeadConfig(hidden_dim=5, embed_dim=4)
    for cls in (BarlowConfig, VICRegConfig, BYOLConfig):
        together = built(cls(head=head, batchnorm_per_view=False), batchnorm=True)
        apart = built(cls(head=head), batchnorm=True)
        expected = copy.deepcopy(apart)
        batch = batch_of(0)
        loss = apart(batch, CLOCK).loss
        assert not torch.isclose(loss, together(batch, CLOCK).loss)
        for view in batch.views:
            expected.projector(expected.backbone(view))
        for part in ("backbone", "projector"):
            found, wanted = getattr(apart, part), getattr(expected, part)
            for buffer, other in zip(found.buffers(), wanted.buffers(), strict=True):
                torch.testing.assert_close(buffer, other)


LINEAR = HeadConfig(hidden_dim=0, embed_dim=4)


def test_deepcluster_predicts_the_clusters_of_its_bank():
    objective = built(DeepClusterConfig(num_prototypes=(5, 3, 4), head=LINEAR))
    objective.prepare(batch_of(step) for step in range(3))
    seen = torch.stack([objective.embed(batch_of(step))[:2] for step in range(3)])
    rows = seen.transpose(0, 1).flatten(1, 2).detach()
    torch.testing.assert_close(objective.clusters.bank.rows[:, :24], rows)
    objective.before_epoch(CLOCK)
    assignments = objective.clusters.of(torch.arange(IMAGES))
    assert (assignments[:, 24:] == -1).all()  # pictures that nobody has seen
    for head, weight in enumerate(objective.prototypes.parameters()):
        assert not weight.requires_grad
        nearest = (rows[head % 2] @ weight.T).argmax(dim=1)
        assert torch.equal(assignments[head, :24], nearest)
        for cluster in nearest.unique():
            mean = F.normalize(rows[head % 2][nearest == cluster].mean(dim=0), dim=0)
            torch.testing.assert_close(weight[cluster], mean, atol=1e-5, rtol=0)
    output = objective(batch_of(1), CLOCK)
    embeddings = F.normalize(objective.embed(batch_of(1)), dim=2)
    losses = []
    for head, weight in enumerate(objective.prototypes.parameters()):
        for view in embeddings:
            logits = view @ weight.T / 0.1
            losses.append(F.cross_entropy(logits, assignments[head, 8:16]))
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())


def test_cluster_metrics():
    objective = built(DeepClusterConfig(num_prototypes=(5,), head=LINEAR))
    clusters = objective.clusters
    clusters.bank.update(torch.arange(24), torch.randn(2, 24, 4))
    first = torch.tensor([0] * 12 + [1] * 6 + [2] * 4 + [3] * 2)
    clusters.assign([first])
    assert "nmi_last_epoch" not in clusters.metrics
    assert clusters.metrics["prototypes_used"].item() == pytest.approx(0.8)
    sizes = [clusters.metrics[f"cluster_size_{q}"].item() for q in (0, 10, 50, 90, 100)]
    assert sizes == pytest.approx(list(np.quantile([12, 6, 4, 2, 0], [0, 0.1, 0.5, 0.9, 1])))
    clusters.assign([(first + 1) % 5])
    assert clusters.metrics["nmi_last_epoch"].item() == pytest.approx(1)
    clusters.assign([torch.zeros_like(first)])
    assert clusters.metrics["nmi_last_epoch"].item() == pytest.approx(0)


def test_the_bank_takes_the_embeddings_of_training():
    objective = built(DeepClusterConfig(num_prototypes=(3,), head=LINEAR))
    objective.prepare(batch_of(step) for step in range(3))
    before = objective.clusters.bank.rows.clone()
    expected = objective.embed(batch_of(0))[:2].detach()
    train(objective, 1)
    torch.testing.assert_close(objective.clusters.bank.rows[:, :8], expected)
    assert torch.equal(objective.clusters.bank.rows[:, 8:], before[:, 8:])


@pytest.mark.parametrize("config", [DeepClusterConfig, SeLaConfig])
def test_clusters_need_pictures(config):
    made = config(num_prototypes=(40,), head=LINEAR)
    with pytest.raises(ValueError, match=r"40 prototypes for 24 pictures.*num-prototypes 2"):
        made.check(TrainingFacts(feature_dim=1, num_images=IMAGES, global_batch=BATCH))
    with pytest.raises(ValueError, match=r"call prepare\(batches\) before step 0"):
        built(config(num_prototypes=(4,), head=LINEAR)).before_epoch(CLOCK)


@pytest.mark.parametrize(("images", "number"), [(64, 21), (50_000, 593), (1_281_167, 3000)])
def test_clusters_grow_with_the_data(images, number):
    assert DeepClusterConfig().resolved_prototypes(images) == (number,) * 3
    assert DeepClusterConfig(num_prototypes=(7, 5)).resolved_prototypes(images) == (7, 5)


def test_sela_shares_pictures_equally():
    objective = built(SeLaConfig(num_prototypes=(4, 3), iterations=50, epsilon=0.02, head=LINEAR))
    objective.prepare(batch_of(step) for step in range(3))
    objective.before_epoch(CLOCK)
    for head, number in ((0, 4), (1, 3)):
        sizes = objective.clusters.of(torch.arange(24))[head].bincount(minlength=number)
        assert (sizes - 24 / number).abs().max() <= 2
    before = next(objective.prototypes.parameters()).detach().clone()
    train(objective, 1)
    assert not torch.equal(next(objective.prototypes.parameters()), before)


def test_moco_against_its_steps():
    objective = built(MoCoConfig(queue_length=20, momentum=0.9, temperature=0.2, head=LINEAR))
    teacher = copy.deepcopy((objective.backbone, objective.projector))
    queue = None
    optimizer = torch.optim.SGD((w for w in objective.parameters() if w.requires_grad), lr=0.1)
    for step in range(4):
        batch, clock = batch_of(step), CLOCK.at(step, global_batch=BATCH)
        with torch.no_grad():
            keys = [F.normalize(teacher[1](teacher[0](view)), dim=1) for view in batch.views[:2]]
            embed = nn.Sequential(objective.backbone, objective.projector)
            queries = [F.normalize(embed(view), dim=1) for view in batch.views]
        objective.before_step(clock)
        output = objective(batch, clock)
        queue = objective.queue.rows if queue is None else queue
        pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
        losses = [info_nce(queries[q], keys[k], queue[k], temperature=0.2) for k, q in pairs]
        torch.testing.assert_close(output.loss, torch.stack(losses).mean())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        objective.after_step(clock)
        queue = torch.cat([torch.stack(keys), queue], dim=1)[:, :20]
        torch.testing.assert_close(objective.queue.rows, queue)
        for old, new in zip(teacher, (objective.backbone, objective.projector), strict=True):
            for slow, weight in zip(old.parameters(), new.parameters(), strict=True):
                slow.data.mul_(0.9).add_(weight.data, alpha=0.1)


def test_keys_are_made_in_other_company_than_queries():
    """With BatchNorm, groups of shuffled pictures have other statistics; order is restored."""
    objective = built(MoCoConfig(queue_length=8, batchnorm_groups=2, head=LINEAR), batchnorm=True)
    batch = batch_of(0)
    keys = objective._shuffled_keys(batch.views[:1], CLOCK)[0]
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(keys)
    for group in order.chunk(2):
        network = Network(batchnorm=True)
        network.load_state_dict(objective.backbone.state_dict())
        features = network(batch.views[0][group])
        expected[group] = F.normalize(objective.projector(features), dim=1).detach()
    torch.testing.assert_close(keys, expected)


def test_byol_against_its_steps_and_its_schedule():
    config = BYOLConfig(head=HeadConfig(hidden_dim=5, embed_dim=4, batchnorm=False), momentum=0.9)
    objective = built(config)
    backbone, projector = copy.deepcopy((objective.backbone, objective.projector))
    batch = batch_of(0)
    online = nn.Sequential(objective.backbone, objective.projector, objective.predictor)
    losses = [
        bootstrap_distance(online(batch.views[view]), projector(backbone(batch.views[target])))
        for target, view in [(0, 1), (0, 2), (1, 0), (1, 2)]
    ]
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(objective(batch, CLOCK).loss, expected)
    train(objective, 1)
    moved = objective.target_backbone.average.convolution.weight
    mixed = 0.9 * backbone.convolution.weight + 0.1 * objective.backbone.convolution.weight
    torch.testing.assert_close(moved, mixed.detach())
    assert config.momentum_at(CLOCK) == pytest.approx(0.9)
    assert config.momentum_at(CLOCK.at(6, global_batch=BATCH)) == pytest.approx(0.95)
    assert config.momentum_at(CLOCK.at(12, global_batch=BATCH)) == pytest.approx(1)


def test_the_predictor_of_byol_may_learn_faster():
    def moved(rate: float) -> dict[str, Tensor]:
        head = HeadConfig(hidden_dim=32, embed_dim=4, batchnorm=False)
        config = BYOLConfig(head=head, predictor_rate=rate)
        objective = built(config)
        before = {name: weight.detach().clone() for name, weight in objective.named_parameters()}
        optim = OptimConfig(optimizer="sgd", batch_size=8, weight_decay=0.0)
        optimizer = optim.build(objective, objective.lr_multipliers)
        list(fit(objective, [batch_of(0)], optimizer, CLOCK, learning_rate=lambda _: 0.1))
        return {name: weight - before[name] for name, weight in objective.named_parameters()}

    one, ten = moved(1.0), moved(10.0)
    torch.testing.assert_close(ten["predictor.0.weight"], 10 * one["predictor.0.weight"])
    torch.testing.assert_close(ten["projector.0.weight"], one["projector.0.weight"])
    assert one["projector.0.weight"].abs().max() > 0


def test_a_queue_of_all_pictures_is_warned_of():
    long, auto = MoCoConfig(queue_length=64), MoCoConfig()
    (warning,) = long.check(TrainingFacts(feature_dim=1, num_images=50, global_batch=8))
    assert "a queue of 64 holds every one of 50 pictures" in warning
    assert not auto.check(TrainingFacts(feature_dim=1, num_images=50, global_batch=8))


def test_instance_discrimination_against_its_steps():
    objective = built(InstDiscConfig(head=LINEAR, num_negatives=50, temperature=0.2))
    with pytest.raises(ValueError, match=r"call prepare\(batches\) before step 0"):
        objective(batch_of(0), CLOCK)
    bank = objective.bank
    random_rows = bank.rows[0].clone()
    chosen = random_rows[bank.draw(50, step=0)]
    rows = dict(enumerate(random_rows))
    first_pass, scores = [batch_of(0), batch_of(1)], []
    objective.prepare(first_pass)
    for batch in first_pass:
        views = objective.embed(batch).detach()
        scores += [math.exp(view @ row / 0.2) for view in views.flatten(0, 1) for row in chosen]
        for image, new in zip(batch.indices.tolist(), views[:2].mean(dim=0), strict=True):
            rows[image] = F.normalize(new, dim=0)
    log_z = torch.tensor(math.log(IMAGES * np.mean(scores)))
    seen = {image for batch in first_pass for image in batch.indices.tolist()}
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for step in range(4):
        batch, clock = batch_of(step), CLOCK.at(step, global_batch=BATCH)
        views = objective.embed(batch).detach()
        drawn = torch.stack([rows[i] for i in bank.draw(50, step=step).tolist()])
        own = torch.stack([rows[i] for i in batch.indices.tolist()])
        losses = [
            noise_contrast(
                view, own, drawn, temperature=0.2, log_normaliser=log_z, num_images=IMAGES
            )
            for view in views
        ]
        objective.before_step(clock)
        output = objective(batch, clock)
        torch.testing.assert_close(output.loss, torch.stack(losses).mean())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        objective.after_step(clock)
        for image, new in zip(batch.indices.tolist(), views[:2].mean(dim=0), strict=True):
            old = rows[image] if image in seen else F.normalize(new, dim=0)
            rows[image] = F.normalize(0.5 * old + 0.5 * F.normalize(new, dim=0), dim=0)
            seen.add(image)


def test_instance_discrimination_can_find_a_row_before_it_has_learned():
    """An untrained network's embeddings crowd together; Z is still that of scattered rows."""
    objective = built(
        InstDiscConfig(
            head=HeadConfig(hidden_dim=0, embed_dim=64), num_negatives=200, temperature=0.1
        )
    )
    objective.prepare([batch_of(0), batch_of(1)])
    log_noise = math.log(200 / IMAGES)
    assert 1 / 0.1 - objective.get_extra_state()["log_normaliser"] - log_noise > 0


def test_redundancy_reduction_over_all_pairs_with_a_target():
    head = replace(EXPANDER, hidden_dim=5, embed_dim=4, batchnorm=False)
    batch, pairs = batch_of(0, num_targets=1), [(0, 1), (0, 2)]
    barlow = built(BarlowConfig(redundancy_weight=0.1, head=head))
    views = [barlow.projector(barlow.backbone(view)) for view in batch.views]
    losses = [cross_correlation(views[a], views[b], redundancy_weight=0.1) for a, b in pairs]
    torch.testing.assert_close(barlow(batch, CLOCK).loss, torch.stack(losses).mean())
    vicreg = built(VICRegConfig(head=head))
    views = [vicreg.projector(vicreg.backbone(view)) for view in batch.views]
    together = sum(25 * F.mse_loss(views[a], views[b]) / 2 for a, b in pairs)
    apart = sum(25 * variance_hinge(view) / 3 + 2 * covariance_penalty(view) / 3 for view in views)
    torch.testing.assert_close(vicreg(batch, CLOCK).loss, together + apart)


SWAV: dict[str, Any] = {"num_prototypes": (6,), "freeze_steps": 0, "head": LINEAR}


def codes_of(objective: Any) -> Tensor:
    """Return the codes of the only head, target view by target view."""
    (batch,) = objective.with_targets([batch_of(0)], CLOCK)
    (codes,) = batch.targets
    return codes


def test_a_momentum_teacher_makes_the_codes_of_swav():
    objective = built(SwAVConfig(codes_from="average", ema_momentum=0.5, **SWAV))
    plain = built(SwAVConfig(**SWAV))
    own, made = codes_of(plain), codes_of(objective)
    torch.testing.assert_close(made, own)  # teacher and network start as one
    teacher = copy.deepcopy((objective.average, objective.head_average))
    with torch.no_grad():
        for weight in (*objective.backbone.parameters(), *objective.projector.parameters()):
            weight.add_(torch.randn_like(weight))
    torch.testing.assert_close(codes_of(objective), own)
    objective(batch_of(0), CLOCK).loss.backward()
    objective.after_step(CLOCK)
    for before, after in zip(teacher, (objective.average, objective.head_average), strict=True):
        for old, new in zip(before.parameters(), after.parameters(), strict=True):
            assert not torch.equal(old, new)
    with pytest.raises(ValueError, match=r"give --method\.ema-momentum"):
        built(SwAVConfig(codes_from="average", **SWAV))


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, [1 / 6] * 6),
        ({"prior": Prior(exponent=1.0)}, [20 / 49, 10 / 49, 20 / 147, 5 / 49, 4 / 49, 10 / 147]),
        ({"prior": Prior(weights=(5.0, 1.0, 1.0, 1.0, 1.0, 1.0))}, [0.5] + [0.1] * 5),
    ],
)
def test_prototypes_get_their_shares(changes, shares):
    objective = built(SwAVConfig(iterations=100, epsilon=0.5, **changes, **SWAV))
    for codes in codes_of(objective):
        torch.testing.assert_close(codes.mean(dim=0), torch.tensor(shares), atol=1e-4, rtol=0)


def test_a_weak_prior_lets_the_pictures_choose():
    firm, weak = (
        built(SwAVConfig(iterations=50, prior=Prior(strength=strength), **SWAV))
        for strength in (100.0, 1e-4)
    )
    spread_firm, spread_weak = (codes_of(each)[0].mean(dim=0).std() for each in (firm, weak))
    assert spread_firm < 0.01 < spread_weak


def test_a_prior_for_another_number_of_prototypes_is_refused():
    with pytest.raises(ValueError, match=r"prior\.weights has 2 values for a head of 6"):
        built(SwAVConfig(prior=Prior(weights=(0.5, 0.5)), **SWAV))


@pytest.mark.parametrize(
    ("config", "wrong", "message"),
    [
        (DeepClusterConfig, {"num_prototypes": (5, 1)}, "every head needs at least 2"),
        (SeLaConfig, {"epsilon": 0.0}, r"epsilon 0\.0 must be positive"),
        (MoCoConfig, {"queue_length": 0}, "no other negatives"),
        (MoCoConfig, {"momentum": 1.0}, r"momentum 1\.0 must be at least 0 and below 1"),
        (BYOLConfig, {"momentum": 1.1}, r"momentum 1\.1 must be in \[0, 1\]"),
        (InstDiscConfig, {"num_negatives": 0}, "num_negatives 0 must be at least 1"),
        (BarlowConfig, {"redundancy_weight": -1.0}, "must not be negative"),
        (VICRegConfig, {"variance_weight": -1.0}, "must not be negative"),
        (Prior, {"weights": (1.0, 0.0)}, "must all be positive"),
        (Prior, {"strength": 0.0}, r"strength 0\.0 must be positive"),
    ],
)
def test_wrong_settings_are_named(config, wrong, message):
    with pytest.raises(ValueError, match=message):
        config(**wrong)
