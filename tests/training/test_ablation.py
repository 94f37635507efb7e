"""Ablations: every run once, goes on after an interruption, and what stands in the table."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import drawn, tiny_config, write_pictures

import swav
from swav.config import UsageError
from swav.engine.divergence import NotFiniteError
from swav.recipes.train_config import TrainConfig, read_train_config
from swav.report.ablation import COLUMNS, summarised, write_table
from swav.run_folder import layout
from swav.run_folder.metrics_log import MetricsLog
from swav.run_folder.result import Metric, Result
from swav.training.ablation import ROWS, SPEEDS, Variant, ablate, append_row, read_rows
from swav.training.networks import build_objective
from swav.training.run import StoppedBySignal
from swav.training.trained_run import TrainedRun


class Trainings:
    """Stands in for ``swav.train``: writes what a finished run leaves, and counts the calls."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.failure: tuple[str, Exception] | None = None
        self.resumed = True

    def __call__(self, data: Any, *, out: Path, config: TrainConfig, resume: bool) -> TrainedRun:
        self.resumed = self.resumed and resume
        if self.failure is not None and self.failure[0] in out.name:
            raise self.failure[1]
        self.made.append(out.name)
        out.mkdir(parents=True)
        swav.config.dump(config, out / layout.CONFIG)
        steps = len(data) // config.optim.batch_size * config.epochs
        with MetricsLog(out) as log:
            for step in range(1, steps + 1):
                log.write({"step": step, "images": 16 * step, "seconds": step / 2} | SPEED)
        epsilon = config.method.epsilon  # type: ignore[union-attr]
        for task, metric, value in (
            ("knn", "top1_k10", epsilon + config.seed / 10),
            ("linear", "top1", 0.5),
            ("clusters", "nmi", 0.25),
        ):
            about = {metric: Metric(title=metric)}
            result = Result(
                task=task, protocol={}, metrics={metric: value}, about=about, lead=metric
            )
            result.write(layout.evaluation(out, task))
        objective = build_objective(config, num_images=64)
        return TrainedRun(folder=out, config=config, objective=objective, num_images=64)


SPEED = {"images_per_second": 32.0}


def variants(train: Any, *epsilons: float, data: Any = None, **changes: Any) -> list[Variant]:
    base = tiny_config(**changes)
    pictures = swav.from_arrays(drawn()[0]) if data is None else data
    return [
        Variant(
            settings={"method.epsilon": str(epsilon)},
            config=replace(base, method=replace(base.method, epsilon=epsilon)),
            data=pictures,
            train=train,
        )
        for epsilon in epsilons
    ]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / ROWS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_is_one_row_and_is_made_once(tmp_path: Path) -> None:
    train = Trainings()
    for _ in range(2):
        ablate(variants(train, 0.25, 0.5), seeds=(0, 1), out=tmp_path)
    names = [f"method.epsilon={epsilon},seed={seed}" for seed in (0, 1) for epsilon in (0.25, 0.5)]
    assert train.made == names
    assert train.resumed
    rows = rows_of(tmp_path)
    assert list(rows[0]) == ["method.epsilon", "seed", *COLUMNS]
    assert [(row["method.epsilon"], row["seed"], row["knn"]) for row in rows] == [
        *(("0.25", "0", "0.25"), ("0.5", "0", "0.5")),
        *(("0.25", "1", "0.35"), ("0.5", "1", "0.6")),
    ]
    assert {key: rows[0][key] for key in ("own_nmi", "epochs", "seconds", "rankme")} == {
        **{"own_nmi": "0.25", "epochs": "5"},
        **{"seconds": "10.0", "rankme": ""},  # 20 steps
    }
    assert rows[0]["pictures_per_second"] == "32.0"
    ablate(variants(train, 0.25, 0.5), seeds=(0, 1, 2), out=tmp_path)
    assert len(train.made) == 6, "another seed is added to what there is"


def test_the_table_has_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    ablate(variants(Trainings(), 0.25, 0.5), seeds=(0, 1), out=tmp_path)
    head, _, *lines = (tmp_path / "table.md").read_text().splitlines()
    assert head.startswith("| method.epsilon | seeds | kNN, % | linear, % | own clusters, NMI, % |")
    spread = 100 * np.std([0.25, 0.35], ddof=1)
    assert lines[0].startswith(f"| 0.25 | 2 | 30.0 +- {spread:.1f} | 50.0 +- 0.0 | 25.0 +- 0.0 |")
    assert lines[1].startswith(f"| 0.5 | 2 | 55.0 +- {spread:.1f} |")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_stopped_ablation_goes_on_with_the_run_that_was_stopped(tmp_path: Path) -> None:
    train = Trainings()
    train.failure = ("epsilon=0.5", StoppedBySignal("stopped after step 3 of 20"))
    with pytest.raises(StoppedBySignal):
        ablate(variants(train, 0.25, 0.5), seeds=(0,), out=tmp_path)
    assert len(rows_of(tmp_path)) == 1
    train.failure = None
    ablate(variants(train, 0.25, 0.5), seeds=(0,), out=tmp_path)
    assert train.made == ["method.epsilon=0.25,seed=0", "method.epsilon=0.5,seed=0"]


def test_a_run_that_fails_leaves_the_others(tmp_path: Path) -> None:
    train = Trainings()
    train.failure = ("epsilon=0.25", NotFiniteError("the loss is NaN"))
    with pytest.raises(ValueError, match=r"1 runs failed.*epsilon=0.25, seed 0 \(the loss is NaN"):
        ablate(variants(train, 0.25, 0.5), seeds=(0,), out=tmp_path)
    assert [row["method.epsilon"] for row in rows_of(tmp_path)] == ["0.5"]


def test_other_settings_do_not_count_as_the_same_run(tmp_path: Path) -> None:
    ablate(variants(Trainings(), 0.25), seeds=(0,), out=tmp_path)
    with pytest.raises(ValueError, match="epochs was 5, now 6"):
        ablate(variants(Trainings(), 0.25, epochs=6), seeds=(0,), out=tmp_path)
    assert len(rows_of(tmp_path)) == 1
    other = [replace(each, settings={"crops": "2x16"}) for each in variants(Trainings(), 0.25)]
    with pytest.raises(UsageError, match="another grid: give another --out"):
        ablate(other, seeds=(0,), out=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": 2, "seeds": (0, 0)}, "0: give each value and each seed once"),
        ({"number": 0}, "at least one value and one seed"),
        ({"number": 1, "seeds": ()}, "at least one value and one seed"),
    ],
)
def test_what_cannot_be_a_grid_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    made = variants(Trainings(), *(0.25, 0.5)[: changes["number"]])
    with pytest.raises(UsageError, match=message):
        ablate(made, seeds=changes.get("seeds", (0,)), out=tmp_path)


def test_a_variant_that_cannot_be_trained_is_refused_before_the_first_run(tmp_path: Path) -> None:
    train = Trainings()
    good, bad = variants(train, 0.25, 0.5)
    bad = replace(bad, config=replace(bad.config, optim=replace(bad.config.optim, batch_size=65)))
    with pytest.raises(UsageError, match=r"epsilon=0\.5: 64 pictures are fewer than one batch"):
        ablate([good, bad], seeds=(0,), out=tmp_path)
    assert not train.made


def test_at_equal_time_the_schedule_ends_when_the_time_does(tmp_path: Path) -> None:
    train = Trainings()
    for _ in range(2):
        ablate(variants(train, 0.25), seeds=(0,), out=tmp_path, seconds=15)
    # 32 pictures/s of 64: an epoch takes two seconds
    assert train.made == ["method.epsilon=0.25", "method.epsilon=0.25,seed=0"], "one probe"
    assert rows_of(tmp_path)[0]["epochs"] == "8"
    stored = read_train_config(tmp_path / "runs/method.epsilon=0.25,seed=0" / layout.CONFIG)
    assert stored.optim.warmup_epochs == 1, "as long as before"
    assert read_rows(tmp_path / SPEEDS, ["method.epsilon", "pictures_per_second"]) == [
        {"method.epsilon": "0.25", "pictures_per_second": "32.0"}
    ]
    with pytest.raises(UsageError, match="one epoch takes 2 s, and 1 were asked for"):
        ablate(variants(train, 0.25), seeds=(0,), out=tmp_path / "short", seconds=1)


def test_a_shorter_schedule_has_a_shorter_warm_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (variant,) = variants(Trainings(), 0.25, epochs=40)
    optim = replace(variant.config.optim, warmup_epochs=20)
    variant = replace(variant, config=replace(variant.config, optim=optim))
    ablate([variant], seeds=(0,), out=tmp_path, seconds=20)
    stored = read_train_config(tmp_path / "runs/method.epsilon=0.25,seed=0" / layout.CONFIG)
    assert (stored.epochs, stored.optim.warmup_epochs) == (10, 5)
    assert "within its warm-up" not in caplog.text
    variant = replace(variant, config=replace(variant.config, epochs=20))
    ablate([variant], seeds=(0,), out=tmp_path / "other")
    assert "epsilon=0.25: the run ends within its warm-up of 20 epochs" in caplog.text


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"crops": "2x32,4x20", "seed": "0"}, {"crops": 'a "quoted", | word', "seed": "1"}]
    for row in rows:
        append_row(tmp_path / ROWS, row, ["crops", "seed"])
    assert read_rows(tmp_path / ROWS, ["crops", "seed"]) == rows
    summary = summarised([dict.fromkeys(COLUMNS, "") | row for row in rows], ["crops"])
    write_table(summary, tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text().endswith(r'| a "quoted", \| word | 1 |' + "\n")


def test_trains_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pictures(tmp_path)
    base = tiny_config(data, epochs=1)
    configs = {"as it is": base, "hard": replace(base, method=replace(base.method, codes="hard"))}
    summary = swav.ablate(data, configs, seeds=(3,), out=tmp_path / "study")
    assert [group.settings for group in summary.groups] == [("as it is",), ("hard",)]
    printed = capsys.readouterr().out
    assert re.search(r"hard\s+1\s+\d", printed)
    assert str(tmp_path / "study" / "figure.png") in printed
    (row, other) = rows_of(tmp_path / "study")
    assert (row["variant"], row["seed"], other["variant"]) == ("as it is", "3", "hard")
    run = swav.load(tmp_path / "study/runs/variant=hard,seed=3")
    assert float(other["knn"]) == pytest.approx(
        run.scores["knn"].metrics[run.scores["knn"].lead or ""], rel=1e-5
    )
    assert float(other["own_nmi"]) == pytest.approx(run.scores["clusters"].metrics["nmi"], rel=1e-5)
    assert other["part_retrieval"] == ""


def test_without_labels_the_measures_need_none(tmp_path: Path) -> None:
    pictures = swav.from_arrays(drawn()[0])
    swav.ablate(pictures, {"one": tiny_config(epochs=1)}, seeds=(0,), out=tmp_path)
    (row,) = rows_of(tmp_path)
    assert [row[name] for name in ("knn", "linear", "own_nmi")] == ["", "", ""]
    assert all(float(row[name]) > -1 for name in ("part_retrieval", "stability", "rankme"))


def test_the_speed_is_that_of_a_training(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    config = {"one": tiny_config(data, epochs=40)}
    swav.ablate(data, config, seeds=(0,), out=tmp_path / "study", at_equal="seconds:2")
    (kept,) = read_rows(tmp_path / "study" / SPEEDS, ["variant", "pictures_per_second"])
    speed = float(kept["pictures_per_second"])
    (row,) = rows_of(tmp_path / "study")
    assert int(row["epochs"]) == max(1, round(2 * speed / 64))
    assert int(row["epochs"]) < 40
