"""Tasks that train, from the command's side: boxes are found in DATA, presets by their names."""

import pytest
from tiny import write_pictures
from voc import write_voc

from swav.commands.evaluate import evaluate
from swav.commands.list_ import entries
from swav.config import from_dict, to_dict
from swav.data.sources.open import SourceConfig
from swav.evals import DetectionConfig, KNNConfig, TransferConfig
from swav.evals.harness.eval_data import fit_and_score
from swav.evals.harness.input import PUBLISHED
from swav.evals.presets import PRESETS
from swav.evals.selection import configured, task_config


def test_data_with_boxes_bring_their_own_parts(tmp_path):
    write_voc(tmp_path, {"trainval": 3, "test": 2})
    data = fit_and_score(SourceConfig(data=str(tmp_path))).load()
    assert data.boxes is not None
    for pictures, boxes, number in zip((data.train, data.test), data.boxes, (3, 2), strict=True):
        assert len(pictures) == len(boxes.objects) == number
        assert boxes.pictures is pictures
        assert pictures.in_memory


def test_boxes_are_found_and_several_labels_told_from_the_command(tmp_path, capsys):
    write_voc(tmp_path / "voc", {"trainval": 14, "test": 8})
    detection = DetectionConfig(
        steps=2,
        sizes=(64,),
        max_size=96,
        pyramid_dim=16,
        head_dim=32,
        boxes_per_picture=32,
    )
    common = {"input_size": 64, "out": tmp_path / "out"}
    tasks = [detection, TransferConfig(costs=(1.0,))]
    found = evaluate("random:resnet10t", str(tmp_path / "voc"), tasks=tasks, **common)
    assert [result.task for result in found] == ["detection", "transfer"]
    assert found[0].counts["score"] == 8
    assert "map" in found[1].metrics
    assert "ap50" in capsys.readouterr().out
    evaluate("pixels", str(tmp_path / "voc"), **common)  # without labels
    assert sorted(path.name for path in (tmp_path / "out/pixels/eval").iterdir()) == [
        *("clusters.json", "part_retrieval.json")
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_task_with_its_settings(name):
    config = task_config(name.replace("_", "-"))
    assert config == PRESETS[name]()
    assert config.name == "detection" or config.input == PUBLISHED
    assert from_dict(type(config), to_dict(config)) == config
    (entry,) = [each for each in entries("tasks") if each.name == name]
    assert len(entry.summary) > 20


def test_options_of_a_task_change_its_presets_too():
    found = configured("places205,transfer", {"transfer.linear.epochs": 3}) or {}
    assert list(found) == ["places205", "transfer"]
    assert [config.linear.epochs for config in found.values()] == [3, 3]
    assert found["places205"].linear.drop_factor == 0.1
    with pytest.raises(ValueError, match="name one twice"):
        configured("places205,places205", {})


def test_a_result_bears_the_name_of_its_protocol(tmp_path):
    common = {"data": write_pictures(tmp_path), "input_size": 32, "out": tmp_path}
    named = {"near": KNNConfig(k=(3,)), "knn": KNNConfig(k=(5,))}
    first, second = evaluate("pixels", tasks=named, **common)
    assert (first.task, first.name, first.label) == ("knn", "near", "near")
    assert (second.task, second.name, second.label) == ("knn", "", "knn")
    assert sorted(path.name for path in tmp_path.rglob("eval/*")) == ["knn.json", "near.json"]
    for name in ("linear", "../near", ""):
        with pytest.raises(ValueError, match="cannot name a result of knn"):
            evaluate("pixels", tasks={name: KNNConfig()}, **common)
