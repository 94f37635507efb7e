"""Transfer: linear and fine-tuned on known answers, and several labels against scikit-learn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC
from tiny import WITHOUT_BATCHNORM
from voc import write_voc, xml

from swav.data.eval_transform import EvalTransform
from swav.data.sources.annotated import open_annotated
from swav.data.sources.open import from_arrays
from swav.evals import TransferConfig, transfer
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.finetune import FineTuneConfig
from swav.evals.harness.subject import Subject
from swav.evals.transfer import SeveralLabels

QUICK = FineTuneConfig(trunk_rate=0.0, head_rate=0.5, batch_size=16, epochs=1, min_steps=30)
CONFIG = TransferConfig(linear=QUICK, finetune=replace(QUICK, trunk_rate=0.02))
TRANSFORM = EvalTransform(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WITHOUT_BATCHNORM.build(3)


def halves(num_images: int, *, seed: int):
    """Return pictures that are bright above or below, which is their class."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 60, (num_images, 3, 16, 16), generator=generator).byte()
    labels = torch.arange(num_images) % 2
    pixels[labels == 0] += 180
    return from_arrays(pixels, labels.numpy())


def test_what_is_plain_to_see_is_learnt_both_ways(backbone):
    result = transfer.run(CONFIG, backbone, TRANSFORM, halves(32, seed=0), halves(16, seed=1))
    assert result.metrics == {"linear_top1": 1, "finetune_top1": 1}
    assert result.counts == {"fit": 32, "score": 16, "classes": 2}


def test_the_untrained_network_goes_through_the_same(backbone):
    data = EvalData(halves(20, seed=0), None, "some", "some")
    config = replace(CONFIG, ways=("linear",), linear=replace(QUICK, min_steps=2))
    results = [config.evaluate(Subject(data, backbone, TRANSFORM)) for _ in range(2)]
    assert results[0].with_baseline("random", results[1]).baselines["random"]
    assert results[0].counts == {"fit": 16, "score": 4, "classes": 2}
    with pytest.raises(ValueError, match="pixels have none"):
        config.evaluate(Subject(data))


def several(num_images: int, *, seed: int, noise: float = 0.6) -> SeveralLabels:
    """Return features in which three classes are shown independently, some of them doubtful."""
    generator = np.random.default_rng(seed)
    present = generator.random((num_images, 3)) < (0.5, 0.3, 0.2)
    values = np.concatenate([present, np.ones((num_images, 3))], axis=1)
    values = (values + noise * generator.normal(size=values.shape)).astype(np.float32)
    shown = np.where(present, 1, -1)
    shown[generator.random((num_images, 3)) < 0.1] = 0
    return SeveralLabels(values, shown, ("ant", "bee", "cat"))


def test_separable_classes_have_full_precision_and_shuffled_ones_their_share():
    fit, score = several(80, seed=0, noise=0.02), several(60, seed=1, noise=0.02)
    result = transfer.run_svm(TransferConfig(), fit, score)
    assert result.metrics == pytest.approx({"map": 1, "map_11point": 1})
    assert result.intervals["map"] == pytest.approx((1, 1))
    generator = np.random.default_rng(2)
    chance = [
        each._replace(shown=generator.permutation(np.where(each.shown == 0, -1, each.shown)))
        for each in (several(300, seed=3), several(600, seed=4))
    ]
    config = TransferConfig(costs=(0.1,))
    found = transfer.run_svm(config, *chance).details["average_precision"]
    shares = (chance[1].shown > 0).mean(axis=0)
    assert np.array(list(found.values())) == pytest.approx(shares, abs=0.12)


def test_machines_costs_and_precision_are_those_of_scikit_learns_own_search():
    fit, score = several(90, seed=5), several(70, seed=6)
    config = TransferConfig(costs=(0.01, 0.3, 10.0), seed=3)
    result = transfer.run_svm(config, fit, score)
    for column, name in enumerate(fit.classes):
        known, asked = fit.shown[:, column] != 0, score.shown[:, column] != 0
        search = GridSearchCV(
            LinearSVC(dual="auto", max_iter=10000, random_state=3),
            {"C": list(config.costs)},
            scoring="average_precision",
            cv=StratifiedKFold(3, shuffle=True, random_state=3),
        )
        values, judged = (normalize(each.values.astype(np.float64)) for each in (fit, score))
        search.fit(values[known], fit.shown[known, column] > 0)
        scores = search.decision_function(judged[asked])
        expected = average_precision_score(score.shown[asked, column] > 0, scores)
        assert result.details["costs"][name] == search.best_params_["C"]
        assert result.details["average_precision"][name] == pytest.approx(expected)
    assert result.metrics["map"] == pytest.approx(
        np.mean(list(result.details["average_precision"].values()))
    )


def test_a_class_too_rare_to_be_learnt_is_left_out_by_name():
    fit, score = several(60, seed=7), several(60, seed=8)
    fit.shown[:, 2] = -1
    result = transfer.run_svm(TransferConfig(costs=(1.0,)), fit, score)
    assert result.protocol["classes_left_out"] == ["cat"]
    assert result.counts["classes"] == 2
    fit.shown[:] = -1
    with pytest.raises(ValueError, match="more pictures are needed"):
        transfer.run_svm(TransferConfig(), fit, score)


def test_boxes_say_which_classes_are_shown_and_which_are_doubtful(tmp_path: Path, backbone):
    write_voc(tmp_path, {"trainval": 24, "test": 12}, num_objects=1)
    objects = [("red", 2, 2, 9, 9), ("blue", 5, 5, 9, 9), ("blue", 9, 9, 20, 20)]
    for name, difficult, expected in (
        ("trainval0", (), {"blue": 1, "red": 1}),
        ("trainval1", (1, 2), {"blue": 0, "red": 1}),
        ("trainval2", (0, 1), {"blue": 1, "red": 0}),
    ):
        path = tmp_path / "Annotations" / f"{name}.xml"
        size = (40, 48) if name[-1] in "02" else (48, 36)
        path.write_text(xml(objects, *size, difficult=difficult))
        fit, score = open_annotated(str(tmp_path))
        data = EvalData(fit.pictures, score.pictures, "fit", "score", (fit, score)).load()
        subject = Subject(data, backbone, TRANSFORM)
        shown = transfer.several_labels(subject.train_features, data.boxes[0]).shown
        row = list(fit.pictures.names).index(f"JPEGImages/{name}.jpg")
        assert dict(zip(fit.classes, shown[row].tolist(), strict=True)) == expected
    assert sorted(shown[5].tolist()) == [-1, 1]
    result = TransferConfig(costs=(1.0,)).evaluate(subject)
    assert result.counts == {"fit": 24, "score": 12, "classes": 2, "features": 16}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"ways": ()}, "ways"),
        ({"linear": FineTuneConfig()}, r"linear.trunk_rate 0.01 must be 0"),
        ({"costs": (0.0,)}, "costs"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_wrong_settings_are_named(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        TransferConfig(**wrong)


def test_the_published_schedules_have_their_numbers():
    for config, epochs in ((transfer.places205(), 28), (transfer.inat18(), 84)):
        linear = config.linear
        assert (linear.epochs, linear.batch_size, linear.weight_decay) == (epochs, 256, 1e-4)
        assert (linear.head_rate, linear.trunk_rate, len(linear.drops)) == (0.01, 0.0, 3)
        assert linear.drop_factor == 0.1
        assert config.ways == ("linear",)


@pytest.mark.parametrize(
    "wrong",
    [{"drop_factor": 0.0}, {"crop_area": (0.5, 0.2)}, {"crop_area": (0.0, 1.0)}, {"flip": 1.5}],
)
def test_wrong_settings_of_a_training_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FineTuneConfig(**wrong)
