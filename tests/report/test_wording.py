"""The sentences say what the numbers say."""

from dataclasses import replace

import numpy as np
import pytest

from swav.report.wording import (
    count,
    drawbacks,
    duration,
    findings,
    headline,
    printable,
    private,
    score,
    scorecard,
    verdict,
    warning,
)
from swav.run_folder.readers import Evaluation
from swav.run_folder.result import Metric

SCRIPT = "<script>"


def knn(value: float, *, low: float, high: float, **baselines: float) -> Evaluation:
    return Evaluation(
        task="knn",
        title="Nearest neighbours",
        protocol={},
        about=dict.fromkeys(("top1_k5", "top1_k10"), Metric(title="accuracy", is_share=True)),
        lead="top1_k10",
        finding="of the pictures get their right label from their nearest neighbours",
        metrics={"top1_k5": 0.99, "top1_k10": value},
        intervals={"top1_k10": (low, high)},
        baselines={name: {"top1_k10": baseline} for name, baseline in baselines.items()},
    )


def test_the_headline_names_network_method_pictures_and_set() -> None:
    run = {"data": "/home/someone/photos/", "method": "swav", "backbone": "resnet18"}
    assert headline(run).startswith("A resnet18 trained with swav on pictures")
    run["method_title"] = "SwAV"
    expected = "A resnet18 trained with SwAV on 1,906 pictures of “photos”, without labels"
    assert headline(run | {"num_images": 1906}) == expected
    run |= {"num_images": 1906, "tune": "head"}
    expected = (
        "Clusters with SwAV of 1,906 pictures of “photos”, on features of a resnet18, "
        "without labels"
    )
    assert headline(run) == expected
    assert "cifar10:DIR" in headline({"data": "cifar10:/somewhere/DIR"})
    assert headline({}) == "A network trained on pictures, without labels"


@pytest.mark.parametrize(
    ("untrained", "said"),
    [
        (0.574, "3.9 points above the untrained network (57.4\u00a0%)"),
        (0.655, "4.2 points below the untrained network (65.5\u00a0%)"),
        (0.600, "not clearly different from the untrained network (60.0\u00a0%)"),
    ],
)
def test_a_difference_inside_the_interval_is_not_called_one(untrained: float, said: str) -> None:
    ((value, sentence),) = findings([knn(0.613, low=0.591, high=0.635, random=untrained)])
    assert value == "61.3\u00a0%"
    assert sentence.endswith(f": {said}.")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (0.574, "better than where it began, 3.9 points above the start, frozen (57.4\u00a0%)"),
        (0.655, "not better than where it began, 4.2 points below the start, frozen (65.5\u00a0%)"),
        (0.600, "not better than where it began, not clearly different from the start, frozen"),
    ],
)
def test_where_a_run_began_is_said_first(start: float, said: str) -> None:
    evaluation = knn(0.613, low=0.591, high=0.635, pixels=0.2, random=0.3, start=start)
    ((_, sentence),) = findings([evaluation])
    assert f": {said}" in sentence
    assert sentence.index("began") < sentence.index("the untrained network")
    card = scorecard(evaluation)
    assert card is not None
    assert [bar.label for bar in card.bars[-2:]] == ["Start, frozen", "This run"]


def test_less_is_better_than_where_a_run_began_where_less_is_better() -> None:
    evaluation = knn(0.613, low=0.591, high=0.635, start=0.7)
    about = {"top1_k10": replace(evaluation.about["top1_k10"], higher_is_better=False)}
    ((_, sentence),) = findings([replace(evaluation, about=about)])
    assert ": better than where it began" in sentence


def test_the_leading_metric_is_not_the_luckiest() -> None:
    card = scorecard(knn(0.5, low=0.4, high=0.6, pixels=0.25))
    assert card is not None
    pixels, ours = card.bars
    assert (pixels.label, ours.label) == ("Raw pixels", "This run")
    assert ours.value == "50.0\u00a0%"
    assert ours.percent == pytest.approx(2 * pixels.percent, abs=0.02)
    assert ours.interval is not None
    low, high = ours.interval
    assert low < ours.percent < high <= 100


def test_collapse_is_said_and_health_is_not() -> None:
    ln_k = np.full(3, 4.0)
    healthy = {"loss": np.array([4.0, 3.0, 2.0]), "ln_k": ln_k, "prototypes_used": np.ones(3)}
    assert warning(healthy) == ""
    assert "within 1 % of ln K" in warning(healthy | {"loss": np.array([4.0, 4.0, 3.97])})
    few = np.array([1.0, 0.5, 0.09])
    assert "9.0 % of the prototypes" in warning(healthy | {"prototypes_used": few})
    assert warning({}) == ""


def test_shares_are_percentages_and_other_metrics_are_not() -> None:
    assert score(Metric(title="top-1 accuracy", is_share=True), 0.6134) == "61.3\u00a0%"
    assert score(Metric(title="NMI"), 0.6134) == "0.613"


def test_folders_and_credentials_stay_private() -> None:
    assert private("/home/someone/my/photos") == "…/photos"
    assert private("C:\\Users\\someone\\photos") == "…/photos"
    assert private("swav train /home/someone/photos --out runs/one") == (
        "swav train …/photos --out runs/one"
    )
    assert private("cifar10:/srv/data/cifar") == "cifar10:…/cifar"
    assert private("https://user:secret@host/repository") == "https://…@host/repository"
    assert private("1/2 of 3/4") == "1/2 of 3/4"


def test_characters_that_deceive_are_spelt_out() -> None:
    assert printable("a\u202eb\x00c\nd\udcffe") == "a\\u202eb\\x00c\\nd\\udcffe"
    assert printable("שלום 日本 👩‍🚀") == "שלום 日本 👩‍🚀"


def test_durations_and_counts_read_well() -> None:
    assert [duration(each) for each in (48.2, 252.0, 3780.0)] == [
        "48 s",
        "4 min 12 s",
        "1 h 03 min",
    ]
    assert [count(each, "picture") for each in (1, 1906)] == ["1 picture", "1,906 pictures"]


LOST = {"guard": {"winner": "start", "reason": "It is worse.", "remedy": "Do better."}}
WON = {"guard": {"winner": "trained", "reason": "It is no worse.", "remedy": "Do better."}}


def test_a_network_that_won_and_beats_its_baselines_has_no_drawbacks() -> None:
    good = knn(0.613, low=0.591, high=0.635, random=0.574, pixels=0.634, **{"patch-kmeans": 0.8})
    assert drawbacks(WON, [good]) == []
    assert verdict(WON) == "It is no worse."
    assert drawbacks({}, []) == drawbacks({"guard": SCRIPT}, []) == []
    assert verdict({}) == verdict({"guard": {"skipped": "too few", "remedy": "Do better."}}) == ""


def test_the_guard_and_labels_speak_each_for_themselves_and_the_remedy_comes_last() -> None:
    assert drawbacks(LOST, []) == ["It is worse.", "Do better."]
    bad = knn(0.263, low=0.249, high=0.277, random=0.36, pixels=0.393)
    by_labels = (
        "By labels, 26.3\u00a0% of the pictures get their right label from their nearest "
        "neighbours: fewer than with the untrained network (36.0\u00a0%) and raw pixels "
        "(39.3\u00a0%)."
    )
    assert drawbacks(LOST, [bad]) == ["It is worse.", by_labels, "Do better."]
    assert drawbacks(WON, [bad]) == [by_labels, "Do better."]
    assert drawbacks({}, [bad]) == [by_labels]
