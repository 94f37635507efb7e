"""Models on pictures: baselines, tables, options, and features that are kept."""

import json
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from tiny import WITH_BATCHNORM, drawn, tiny_config, tiny_pictures, write_pictures

from swav.commands.evaluate import evaluate
from swav.config import UsageError
from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import from_arrays
from swav.evals import (
    EvalConfig,
    EvalData,
    KNNConfig,
    LayersConfig,
    LinearConfig,
    Result,
    SemisupConfig,
    Subject,
    extract,
    knn,
)
from swav.evals.harness.baselines import WITHOUT_NETWORK, Baselines, Comparison
from swav.evals.harness.cache import cached_in, weights_digest
from swav.evals.harness.finetune import FineTuneConfig
from swav.evals.harness.input import PUBLISHED
from swav.evals.harness.patch_kmeans import patch_kmeans_encoder
from swav.evals.selection import TASKS, configured
from swav.report.score_table import print_table
from swav.training.evaluation import Measured, by_settings, differing_settings
from swav.training.online_evaluation import PeriodicEvaluation
from swav.training.open_model import Model

TRANSFORM = EvalTransform(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.2,) * 3)
KNN = KNNConfig(k=(5,))


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return WITH_BATCHNORM.build().eval()


@pytest.fixture
def data() -> EvalData:
    return EvalData(tiny_pictures(), None, "drawn", "drawn")


def test_every_task_tells_what_it_needs() -> None:
    for config in (task() for task in TASKS.values()):
        assert isinstance(config.needs_labels, bool)
        assert config.title
        assert set(config.baselines) <= {"start", "random", "pixels", "patch-kmeans"}
        assert ("start" in config.baselines) == ("random" in config.baselines)
        assert type(config).__doc__


def test_the_baselines_are_the_untrained_network_and_the_pixels(data: EvalData) -> None:
    trained, untrained = network(0), network(1)
    subject, baselines = Subject(data, trained, TRANSFORM), Baselines(data)
    result = Comparison(subject, untrained, 7, baselines).run(KNN)
    expected = knn.run(KNN, extract(untrained, data.train, TRANSFORM)).metrics
    assert result.baselines["random"] == expected
    assert result.baselines["pixels"] == knn.run(KNN, Subject(data).train_features).metrics
    patches = Subject(data, encoder_of=patch_kmeans_encoder)
    assert result.baselines["patch-kmeans"] == knn.run(KNN, patches.train_features).metrics
    assert result.seeds == (7,)
    assert result.protocol["fit_on"] == "drawn"
    for name, encoder_of in WITHOUT_NETWORK.items():
        alone = Comparison(Subject(data, encoder_of=encoder_of), None, 0, baselines).run(KNN)
        assert alone.metrics == alone.baselines[name]
        assert "random" not in alone.baselines


def test_what_needs_no_network_is_measured_once_for_all_models(data: EvalData) -> None:
    baselines = Baselines(data)
    first, second = (baselines.beside(KNN) for _ in range(2))
    assert all(first[name] is second[name] for name in WITHOUT_NETWORK)
    assert baselines.run(KNN, partial(patch_kmeans_encoder, num_filters=8)) != first["patch-kmeans"]


def test_patch_kmeans_of_many_pictures_is_left_out_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, data: EvalData
) -> None:
    monkeypatch.setattr("swav.evals.harness.baselines.PATCH_KMEANS_UP_TO", len(data.train) - 1)
    baselines = Baselines(data)
    for task in (KNN, KNNConfig(k=(3,))):
        assert baselines.beside(task).keys() == {"pixels"}
    assert caplog.text.count("patch-kmeans is left out beside 64 pictures, above 63") == 1
    named = Comparison(Subject(data, encoder_of=patch_kmeans_encoder), None, 0, baselines)
    assert named.run(KNN).metrics


def test_a_published_protocol_shows_pictures_as_it_was_published(data: EvalData) -> None:
    trained, untrained = network(0), network(1)
    comparison = Comparison(Subject(data, trained, TRANSFORM), untrained, 0, Baselines(data))
    shown = replace(TRANSFORM, interpolation="bilinear", crop_pct=0.875)
    result = comparison.run(replace(KNN, input=PUBLISHED))
    assert result.details["input"] == asdict(shown)
    assert result.metrics == knn.run(KNN, extract(trained, data.train, shown)).metrics
    random = knn.run(KNN, extract(untrained, data.train, shown)).metrics
    assert result.baselines["random"] == random
    assert comparison.run(KNN).details["input"] == asdict(TRANSFORM)


def test_a_crop_that_is_asked_for_is_that_of_every_task(tmp_path: Path) -> None:
    tasks = {"knn": KNN, "near": replace(KNN, input=PUBLISHED)}
    options = {"tasks": tasks, "input_size": 16, "crop_pct": 0.9}
    results = evaluate("random:resnet10t", write_pictures(tmp_path), **options)
    crops = [result.details["input"]["crop_pct"] for result in results]
    interpolations = [result.details["input"]["interpolation"] for result in results]
    assert crops == [0.9, 0.9]
    assert interpolations == ["bicubic", "bilinear"]


def test_every_result_says_what_its_metrics_are(data: EvalData) -> None:
    comparison = Comparison(Subject(data, network(), TRANSFORM), None, 0, Baselines(data))
    tasks = [task for task in TASKS.values() if "pixels" in task.baselines]
    few = {"k": (5,), "epochs": 1, "passes": 1, "penalties": (0.1,), "folds": 2, "restarts": 1}
    for task in tasks:
        known = {field.name for field in fields(task)}
        config = task(**{name: value for name, value in few.items() if name in known})
        written = comparison.run(config).to_json()
        assert written["title"] == config.title
        assert written["about"].keys() == written["metrics"].keys()
        assert written["lead"] in {"", *written["metrics"]}
        for about in written["about"].values():
            assert about.keys() == {"title", "is_share", "higher_is_better"}
        titles = [about["title"] for about in written["about"].values()]
        assert len(set(titles)) == len(titles)


def test_models_without_a_run_are_measured_and_kept_where_asked(tmp_path: Path, capsys) -> None:
    data = write_pictures(tmp_path)
    results = evaluate(
        ["random:resnet10t", "pixels"], data, tasks=[KNN], out=tmp_path / "out", input_size=16
    )
    assert [result.model for result in results] == ["random:resnet10t", "pixels"]
    shown = capsys.readouterr().out
    assert shown.count("top1_k5") == 2
    assert "random:resnet10t" in shown
    written = json.loads((tmp_path / "out/random_resnet10t/eval/knn.json").read_text())
    assert written == json.loads(json.dumps(results[0].to_json()))
    assert written["baselines"]["random"] == written["metrics"]
    assert (tmp_path / "out/pixels/eval/knn.json").exists()


def test_unlabelled_pictures_get_the_tasks_that_need_no_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", pictures=drawn()[0])
    results = evaluate("pixels", str(tmp_path / "plain.npz"))
    assert [result.task for result in results] == ["clusters", "part_retrieval"]
    assert "nmi" not in results[0].metrics
    with pytest.raises(ValueError, match="linear needs labels"):
        evaluate("pixels", str(tmp_path / "plain.npz"), tasks=["linear"])


def test_tasks_that_train_have_pixels_beside_them(tmp_path: Path) -> None:
    short = FineTuneConfig(epochs=1, trunk_rate=0.05, head_rate=0.1)
    few = SemisupConfig(per_class=(1,), training=short)
    common = {"input_size": 32, "out": tmp_path}
    found = evaluate("random:resnet10t", write_pictures(tmp_path), tasks=[few], **common)
    assert [result.task for result in found] == ["semisup", "knn", "linear"]
    assert set(found[2].baselines) == {"random", "pixels", "patch-kmeans"}


def test_the_old_name_of_a_task_leads_to_the_new_one() -> None:
    with pytest.raises(UsageError, match=r"unknown task 'parts'. Did you mean 'part_retrieval'\?"):
        evaluate("pixels", "digits", tasks=["parts"])


def test_pictures_must_be_named_where_no_run_tells_them() -> None:
    with pytest.raises(UsageError, match="name them after the models"):
        evaluate("pixels")
    with pytest.raises(UsageError, match="nothing to evaluate"):
        evaluate([])
    with pytest.raises(UsageError, match="named twice"):
        evaluate(["pixels", "pixels"], "emoji")
    with pytest.raises(UsageError, match="belong together"):
        evaluate("pixels", "emoji", fit_on="digits")


def test_two_folders_of_one_name_are_two_models(tmp_path: Path, capsys) -> None:
    data = write_pictures(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        network = timm.create_model("resnet10t")
        (tmp_path / name).mkdir()
        torch.save(network.state_dict(), tmp_path / name / "net.pth")
    words = [f"resnet10t={tmp_path / name / 'net.pth'}" for name in ("a", "b")]
    results = evaluate(words, data, tasks=[KNN], out=tmp_path / "out", input_size=16)
    assert [result.model for result in results] == words
    assert len(list((tmp_path / "out").rglob("knn.json"))) == 2
    assert "runs" not in capsys.readouterr().out


def test_parts_are_fitted_on_train_and_scored_on_what_was_held_out(tmp_path: Path) -> None:
    for part, number in (("data/train", 12), ("data/test", 6), ("other", 8)):
        for row in range(number):
            folder = tmp_path / part / f"class{row % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn()[0][row]).save(folder / f"{row}.png")
    data, other = str(tmp_path / "data"), str(tmp_path / "other")
    (found,) = evaluate("pixels", fit_on=data, score_on=data, tasks=[KNNConfig(k=(3,))])
    assert (found.counts["fit"], found.counts["score"]) == (12, 6)
    assert found.protocol["score_on"] == f"{data} (test)"
    with pytest.raises(ValueError, match="a picture would find itself"):
        evaluate("pixels", fit_on=other, score_on=other)
    with pytest.raises(ValueError, match="a picture would find itself"):
        evaluate("pixels", fit_on=other, score_on=f"{other}/")
    with pytest.raises(UsageError, match="beside --fit-on"):
        evaluate("pixels", data, fit_on=data, score_on=other)
    with pytest.raises(UsageError, match="--split is of DATA"):
        evaluate("pixels", fit_on=data, score_on=other, split="test")


def test_tasks_nobody_named_are_left_out_where_pictures_are_too_few(tmp_path: Path, caplog) -> None:
    pictures, labels = drawn()
    rows = np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(4)])
    np.savez(tmp_path / "few.npz", pictures=pictures[rows], labels=labels[rows])
    data = str(tmp_path / "few.npz")
    found = evaluate("pixels", data)
    assert [result.task for result in found] == ["knn", "clusters"]
    assert "linear is left out: " in caplog.text
    with pytest.raises(ValueError, match="too few"):
        evaluate("pixels", data, tasks=["linear"])
    broken = timm.create_model("resnet10t")
    broken.conv1[0].weight.data.fill_(torch.nan)
    torch.save(broken.state_dict(), tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="are not finite"):  # of which no task is possible
        evaluate(f"resnet10t={tmp_path / 'broken.pth'}", data, input_size=16)


def test_a_result_says_what_the_network_was_shown_and_every_seed(tmp_path: Path) -> None:
    (found,) = evaluate(
        "random:resnet10t",
        write_pictures(tmp_path),
        tasks=[LinearConfig(seed=3, folds=2)],
        input_size=16,
        crop_pct=0.875,
    )
    assert found.details["input"]["crop_pct"] == 0.875
    assert found.details["input"]["input_size"] == (3, 16, 16)
    assert (found.protocol["seed"], found.seeds) == (3, (0,))


def test_pixels_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pixels cannot be measured by semisup"):
        evaluate(["random", "pixels"], write_pictures(tmp_path), tasks=["semisup", "knn"])
    with pytest.raises(ValueError, match="device 'cuda9' is not here"):
        evaluate("random", "digits", device="cuda9")


def test_options_of_a_task_change_that_value_alone() -> None:
    configs = configured("knn,linear-sgd,layers", {"layers.probe.folds": 5, "knn.k": [3]})
    assert configs is not None
    layers = TASKS["layers"]()
    expected: list[EvalConfig] = [
        KNNConfig(k=(3,)),
        TASKS["linear_sgd"](),
        replace(layers, probe=replace(layers.probe, folds=5)),
    ]
    assert list(configs) == ["knn", "linear_sgd", "layers"]
    assert list(configs.values()) == expected
    assert configured(None, {}) is None
    with pytest.raises(UsageError, match="option of linear: add linear to --tasks"):
        configured("knn", {"linear.folds": 5})


def test_features_are_read_back_until_weights_or_pictures_change(
    data: EvalData, tmp_path: Path
) -> None:
    kept = cached_in(tmp_path / "features")

    def features_of(net: torch.nn.Module, which: EvalData = data) -> torch.Tensor:
        return Subject(which, net, TRANSFORM, cache=kept).train_features.values

    def num_files() -> int:
        return len(list((tmp_path / "features").iterdir()))

    first = features_of(network())
    (path,) = (tmp_path / "features").iterdir()
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**tensors, "values0": tensors["values0"] + 1}, path)
    assert torch.equal(features_of(network()), first + 1)  # read, not computed
    changed = network()
    changed.bn1.running_mean += 1  # a buffer, no parameter
    assert weights_digest(changed) != weights_digest(network())
    features_of(changed)
    assert num_files() == 2
    path.write_bytes(path.read_bytes()[:100])  # cut short by a full disk
    assert torch.equal(features_of(network()), first)
    assert num_files() == 2
    other = network()
    other.layer1[0].act2 = torch.nn.GELU()  # the same weights, another network
    assert not torch.equal(features_of(other), first)
    assert num_files() == 3
    pixels = data.train.pixels.clone()
    pixels[3, 0, 0, 0] ^= 1
    features_of(network(), data._replace(train=from_arrays(pixels)))
    assert num_files() == 4
    Subject(data, cache=kept).train_features  # noqa: B018
    assert num_files() == 4
    subject = Subject(data, network(), TRANSFORM, cache=kept)
    stages = LayersConfig(max_features=32)
    found = stages.evaluate(subject).metrics
    assert num_files() == 5
    assert stages.evaluate(subject).metrics == found  # of features that were read
    assert num_files() == 5
    LayersConfig(max_features=64).evaluate(subject)
    assert num_files() == 6


def _results(value: float, *, task: str = "knn") -> list[Result]:
    return [Result(task=task, protocol={}, metrics={"top1": value}, intervals={"top1": (0.1, 0.9)})]


def test_runs_that_differ_by_their_seed_are_one_line_with_their_deviation(capsys) -> None:
    base = tiny_config("photos")
    sharp = replace(base, method=replace(base.method, epsilon=0.01))
    models = [
        Model(name=name, config=config)
        for name, config in (
            ("a0", base),
            ("a1", replace(base, seed=1)),
            ("a2", replace(base, seed=2)),
            ("b", sharp),
        )
    ]
    values = (0.5, 0.6, 0.7, 0.9)
    measured = [
        Measured(model, _results(value)) for model, value in zip(models, values, strict=True)
    ]
    groups = by_settings(measured)
    assert {label: len(runs) for label, runs in groups.items()} == {"a0": 3, "b": 1}
    print_table(groups, title="ablation")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "0." in line]
    assert lines[0] == ["knn", "top1", "a0", "3", "0.6000", "+-0.1000"]
    assert lines[1] == ["top1", "b", "1", "0.9000", "0.100-0.900"]
    epsilon = str(base.method.epsilon)
    assert differing_settings(models) == {"method.epsilon": [epsilon] * 3 + ["0.01"]}


def test_numbers_stay_whole_on_a_narrow_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    metrics = {"duplicate_prototypes": 0.1234}
    baselines = dict.fromkeys(("start", "random", "pixels", "patch-kmeans"), metrics)
    result = Result(task="part_retrieval", protocol={}, metrics=metrics, baselines=baselines)
    result = replace(result, intervals={"duplicate_prototypes": (0.111, 0.222)})
    print_table({"random:resnet10t": [[result]], "b": [[result]]}, title="narrow")
    shown = capsys.readouterr().out
    assert (shown.count("0.1234"), shown.count("0.111-0.222")) == (10, 2)


def test_scores_while_training_are_those_of_the_network_and_of_the_same_crops(
    data: EvalData,
) -> None:
    evaluation, net = PeriodicEvaluation(data.train, TRANSFORM), network().train()
    first, second = evaluation.measure(net), evaluation.measure(net)
    assert net.training
    assert first.pop("evaluation_seconds") >= 0
    second.pop("evaluation_seconds")
    assert first == second
    features = extract(net, data.train, TRANSFORM)
    expected = knn.run(KNNConfig(k=(10, 20)), features).metrics
    assert {name: first[f"knn_{name}"] for name in expected} == expected
    unlabelled = PeriodicEvaluation(from_arrays(drawn()[0]), TRANSFORM).measure(net)
    assert unlabelled.keys() == {"rankme", "alignment", "uniformity", "evaluation_seconds"}
    assert unlabelled["rankme"] == first["rankme"]
