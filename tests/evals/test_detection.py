"""Detection: average precision against a brute-force one, boxes that follow flips, learning."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import WITH_BATCHNORM
from torch import nn
from voc import write_voc

from swav.data.eval_transform import EvalTransform
from swav.data.sources.annotated import Annotated, Objects, open_annotated
from swav.data.sources.listing import PackedNames
from swav.data.sources.pictures import Pictures
from swav.data.sources.readers import Contents, Stack
from swav.evals import DetectionConfig, detection
from swav.evals.boxes import DetectedBoxes, mean_average_precision
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.subject import Subject

TRANSFORM = EvalTransform(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
SMALL = DetectionConfig(
    steps=2,
    warmup_steps=5,
    learning_rate=0.02,
    sizes=(64,),
    max_size=96,
    pyramid_dim=16,
    head_dim=32,
    boxes_per_picture=32,
    clip_norm=5.0,
)
THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]
CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return replace(
            WITH_BATCHNORM, args={**WITH_BATCHNORM.args, "channels": [16, 16, 16, 16]}
        ).build(3)


def annotated_of(objects: list[Objects]) -> Annotated:
    names = PackedNames(f"{row}.png" for row in range(len(objects)))
    pixels = torch.zeros(len(objects), 3, 100, 100, dtype=torch.uint8)
    pictures = Pictures("drawn", Contents(Stack(pixels), names))
    return Annotated(pictures, objects, np.full((len(objects), 2), 100), CLASSES)


def random_answers(seed: int) -> tuple[list[DetectedBoxes], list[Objects]]:
    """Return objects, and boxes that are moved, missed, invented, doubled or of another class."""
    generator = np.random.default_rng(seed)
    found, wanted = [], []
    for _ in range(12):
        number = int(generator.integers(0, 6))
        corner = generator.uniform(0, 60, (number, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(10, 40, (number, 2))], axis=1)
        labels = generator.integers(0, 3, number)
        wanted.append(Objects(boxes.astype(np.float32), labels, generator.random(number) < 0.2))
        kept = np.repeat(np.arange(number), generator.integers(0, 3, number))
        moved = boxes[kept] + generator.normal(0, 3, (len(kept), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)  # a box has an area
        invented = np.array([[5, 5, 30, 40]]) + generator.uniform(0, 50)
        answers = np.concatenate([moved, invented]).astype(np.float32)
        named = np.append(labels[kept], generator.integers(0, 3))
        wrong = generator.random(len(named)) < 0.1
        scores = np.round(generator.random(len(named)), 1 if seed % 2 else 6)  # with ties
        found.append(
            DetectedBoxes(
                torch.from_numpy(answers),
                torch.from_numpy(np.where(wrong, (named + 1) % 3, named)),
                torch.from_numpy(scores).float(),
            )
        )
    return found, wanted


def overlap(box, other, ignored: bool) -> float:
    """Return intersection over union, or over the box itself where the other is a crowd."""
    sides = [min(box[2 + k], other[2 + k]) - max(box[k], other[k]) for k in (0, 1)]
    both = max(sides[0], 0.0) * max(sides[1], 0.0)
    area, other_area = ((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    return both / (area if ignored else area + other_area - both)


def matches(found: DetectedBoxes, wanted: Objects, label: int, threshold: float):
    """Yield (score, right) of every box that counts, the best score first."""
    rows = [row for row in range(len(found.scores)) if found.labels[row] == label]
    rows.sort(key=lambda row: -float(found.scores[row]))
    columns = [column for column in range(len(wanted.labels)) if wanted.labels[column] == label]
    taken = set()
    for row in rows[:100]:
        box = found.boxes[row].double().tolist()
        best = {False: (threshold - 1e-10, None), True: (threshold - 1e-10, None)}
        for column in columns:
            ignored = bool(wanted.ignored[column])
            if column in taken and not ignored:
                continue
            share = overlap(box, wanted.boxes[column].astype(np.float64), ignored)
            if share >= best[ignored][0]:
                best[ignored] = (share, column)
        if best[False][1] is not None:
            taken.add(best[False][1])
            yield float(found.scores[row]), True
        elif best[True][1] is None:
            yield float(found.scores[row]), False


def brute_force(found: list[DetectedBoxes], wanted: list[Objects], threshold: float) -> float:
    """Return COCO's average precision, averaged over the classes that occur."""
    precisions = []
    for label in range(3):
        number = sum(int(((w.labels == label) & ~w.ignored).sum()) for w in wanted)
        if number == 0:
            continue
        pairs = [
            pair
            for each, objects in zip(found, wanted, strict=True)
            for pair in matches(each, objects, label, threshold)
        ]
        pairs.sort(key=lambda pair: -pair[0])
        curve, right = [], 0
        for rank, (_, hit) in enumerate(pairs, start=1):
            right += hit
            curve.append((right / number, right / rank))
        points = np.linspace(0, 1, 101)  # the last bit decides where recall is a whole percent
        best = [max([p for r, p in curve if r >= point], default=0.0) for point in points]
        precisions.append(sum(best) / 101)
    return sum(precisions) / len(precisions)


@pytest.mark.parametrize("seed", range(4))
def test_precision_is_what_loops_over_all_boxes_give(seed):
    found, wanted = random_answers(seed)
    measured = mean_average_precision(found, annotated_of(wanted))
    by_hand = [brute_force(found, wanted, threshold) for threshold in THRESHOLDS]
    assert 0.1 < measured["map"] < 0.9
    assert measured["ap50"] == pytest.approx(by_hand[0], abs=1e-6)
    assert measured["ap75"] == pytest.approx(by_hand[5], abs=1e-6)
    assert measured["map"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert np.mean(list(measured["per_class"].values())) == pytest.approx(measured["map"])


def test_every_precision_has_an_interval_where_pictures_differ():
    found, wanted = random_answers(0)
    annotated = annotated_of(wanted)
    precision = mean_average_precision(found, annotated)
    del precision["per_class"]
    intervals = detection._intervals(precision, found, annotated)
    assert intervals.keys() == precision.keys() == {"map", "ap50", "ap75"}
    for name, (low, high) in intervals.items():
        assert low < precision[name] < high


def test_known_answers():
    box = np.array([[10, 10, 30, 30]], dtype=np.float32)
    one = annotated_of([Objects(box, np.array([1]), np.array([False]))])
    score, label = torch.ones(1), torch.tensor([1])

    def scored(boxes, label=label):
        return mean_average_precision([DetectedBoxes(torch.from_numpy(boxes), label, score)], one)

    assert scored(box)["map"] == pytest.approx(1)
    wider = box + np.array([[0, 0, 12, 0]], dtype=np.float32)  # 400 of 640: 0.625
    assert [scored(wider)[name] for name in ("ap50", "ap75")] == pytest.approx([1, 0])
    assert scored(wider)["map"] == pytest.approx(0.3)
    assert scored(box, torch.tensor([2]))["map"] == 0
    assert scored(box)["per_class"] == pytest.approx({"bee": 1})
    with pytest.raises(ValueError, match="not one box"):
        mean_average_precision([], annotated_of([]))


@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_follow_their_objects_whether_flipped_or_not(tmp_path, backbone, seed):
    write_voc(tmp_path, {"train": 2, "val": 1})
    fit, _ = open_annotated(str(tmp_path))
    objective = detection.Detection(nn.ModuleDict(), fit, seed=seed, frozen=False)
    padded = torch.zeros(3, 60, 60)
    for index in range(2):
        picture = fit.picture(index).float()
        padded[:, : picture.shape[1], : picture.shape[2]] = picture
        for flip in (False, True):
            shown, wanted = objective._example(padded, index, flip=flip)
            left, top, right, bottom = wanted["boxes"][0].int().tolist()
            inside = shown[:, top:bottom, left:right].mean(dim=(1, 2))
            assert inside.max() - inside.min() > 150
            assert torch.equal(shown, picture.flip(2) if flip else picture)
            assert wanted["labels"].tolist() == [int(fit.objects[index].labels[0]) + 1]


def test_coloured_squares_are_learnt_and_not_known_before(tmp_path, backbone):
    write_voc(tmp_path, {"trainval": 24, "test": 8})
    fit, score = open_annotated(str(tmp_path))
    data = EvalData(fit.pictures, score.pictures, "fit", "score", (fit, score)).load()
    subject = Subject(data, backbone, TRANSFORM)
    trained = replace(SMALL, steps=40, learning_rate=0.03).evaluate(subject)
    untrained = replace(SMALL, steps=1, learning_rate=1e-9).evaluate(subject)
    assert untrained.metrics["ap50"] < 0.05
    assert trained.metrics["ap50"] > 0.2
    # after 40 steps every box may lie below an IoU of 0.75 (last bits decide): AP 75 is then 0
    # whichever picture is left out, and a measure without spread has no interval
    has_spread = {name for name, value in trained.metrics.items() if value > 0}
    assert trained.intervals.keys() == has_spread >= {"map", "ap50"}
    low, high = trained.intervals["ap50"]
    assert low < trained.metrics["ap50"] < high
    assert trained.counts == {
        "fit": 24,
        "score": 8,
        "classes": 2,
        "fit_boxes": 24,
        "score_boxes": 8,
    }
    assert set(trained.details["map_of_classes"]) == {"blue", "red"}


@pytest.mark.parametrize("name", ["faster-rcnn", "retinanet"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_network_stays_as_it_is_and_what_is_on_it_learns(tmp_path, backbone, name, frozen):
    write_voc(tmp_path, {"train": 4, "val": 1})
    fit, _ = open_annotated(str(tmp_path))
    config = replace(SMALL, detector=name, frozen=frozen, warmup_steps=0)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    nothing = replace(config, steps=1, learning_rate=1e-12)
    trained, start = (
        detection.trained_detector(each, backbone, TRANSFORM, fit) for each in (config, nothing)
    )
    trunk = trained.get_submodule("backbone.trunk").state_dict()
    assert all(torch.equal(value, before[key]) for key, value in trunk.items()) == frozen
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    pyramids = [each.get_submodule("backbone.fpn").state_dict() for each in (trained, start)]
    assert any(not torch.equal(pyramids[0][key], pyramids[1][key]) for key in pyramids[0])


def test_the_rate_warms_up_and_falls_to_a_tenth_twice():
    config = replace(SMALL, steps=100, warmup_steps=10, learning_rate=1.0, warmup_factor=0.2)
    config = replace(config, drops=(0.75, 0.92))
    rates = [detection._rate(config, clock) for clock in clocks(100)]
    assert rates[:11] == pytest.approx([0.2 + 0.08 * step for step in range(11)])
    assert rates[10:75] == [1.0] * 65
    assert rates[75:92] == pytest.approx([0.1] * 17)
    assert rates[92:] == pytest.approx([0.01] * 8)


def clocks(number):
    start = detection.Clock(step=0, epoch=0, steps_per_epoch=7, total_steps=number, images=0)
    return [start.at(step, global_batch=1) for step in range(number)]


def test_what_detection_needs_is_said_before_anything_is_trained(tmp_path, backbone, monkeypatch):
    write_voc(tmp_path, {"train": 2, "val": 1})
    fit, score = open_annotated(str(tmp_path))
    with pytest.raises(ValueError, match=r"detection needs boxes, mine has none"):
        SMALL.evaluate(Subject(EvalData(fit.pictures, None, "mine", "mine"), backbone, TRANSFORM))
    with pytest.raises(ValueError, match="does not show its stages"):
        detection.run(SMALL, nn.Sequential(nn.Conv2d(3, 4, 3)), TRANSFORM, fit, score)
    empty = fit.objects[0]._replace(
        boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), ignored=np.zeros(0, bool)
    )
    without = score._replace(objects=[empty])
    with pytest.raises(ValueError, match="the pictures to score have not one box"):
        detection.run(SMALL, backbone, TRANSFORM, fit, without)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ValueError, match=r"swav\[detect\]"):
        detection.run(SMALL, backbone, TRANSFORM, fit, score)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"sizes": ()}, {"max_size": 50}, {"drops": (18000.0,)}, {"learning_rate": 0.0}],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SMALL, **wrong)


def test_the_published_schedule_has_its_numbers():
    config = detection.voc0712()
    assert (config.steps, config.batch_size, config.learning_rate) == (24000, 16, 0.1)
    assert [share * config.steps for share in config.drops] == pytest.approx([18000, 22000])
    assert (config.warmup_steps, config.warmup_factor) == (1000, 0.333)


def test_any_number_of_loading_processes_gives_the_same_boxes(tmp_path, backbone):
    write_voc(tmp_path, {"train": 4, "val": 2})
    fit, score = open_annotated(str(tmp_path))
    alone, beside = (
        detection.find(
            detection.trained_detector(SMALL, backbone, TRANSFORM, fit, workers=workers),
            score,
            workers=workers,
        )
        for workers in (0, 2)
    )
    for one, other in zip(alone, beside, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
