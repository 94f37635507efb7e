"""Boxes as VOC and COCO write them, brought to one form."""

import json

import numpy as np
import pytest
from voc import write_coco, write_voc, xml

from swav.data.detection_loader import PaddedPictures
from swav.data.processes import items_of
from swav.data.sources.annotated import is_annotated, open_annotated


def coloured(picture, box):
    """Return the mean colour inside a box."""
    left, top, right, bottom = (int(side) for side in box)
    return picture[:, top:bottom, left:right].float().mean(dim=(1, 2))


def test_boxes_of_voc_lie_on_their_objects_from_the_first_to_the_last_pixel(tmp_path):
    write_voc(tmp_path, {"trainval": 6, "test": 4}, num_objects=1)
    fit, score = open_annotated(str(tmp_path))
    assert is_annotated(str(tmp_path))
    assert (len(fit.pictures), len(score.pictures)) == (6, 4)
    assert fit.classes == score.classes == ("blue", "red")
    for index, objects in enumerate(fit.objects):
        (box,), (label,) = objects.boxes, objects.labels
        red, _, blue = coloured(fit.picture(index), box).tolist()
        assert (red > blue) == (fit.classes[label] == "red")
        assert max(red, blue) > 200
        wider = box + np.array([-1, -1, 1, 1])
        assert max(coloured(fit.picture(index), wider.clip(0)).tolist()) < max(red, blue)


def test_a_devkit_fits_on_every_year_and_scores_where_there_is_a_test_list(tmp_path):
    write_voc(tmp_path / "VOC2007", {"trainval": 3, "test": 2})
    write_voc(tmp_path / "VOC2012", {"trainval": 4})
    fit, score = open_annotated(str(tmp_path))
    assert list(fit.pictures.names) == [
        *(f"VOC2007/JPEGImages/trainval{row}.jpg" for row in range(3)),
        *(f"VOC2012/JPEGImages/trainval{row}.jpg" for row in range(4)),
    ]
    assert [name[:7] for name in score.pictures.names] == ["VOC2007"] * 2


def test_pictures_may_be_of_any_kind_and_bear_the_name_that_is_noted(tmp_path):
    write_voc(tmp_path, {"trainval": 3, "test": 2})
    folder = tmp_path / "JPEGImages"
    (folder / "trainval1.jpg").rename(folder / "trainval1.png")
    (folder / "trainval2.jpg").rename(folder / "noted.jpeg")
    annotation = tmp_path / "Annotations" / "trainval2.xml"
    noted = "<annotation><filename>noted.jpeg</filename>"
    annotation.write_text(annotation.read_text().replace("<annotation>", noted))
    fit, _ = open_annotated(str(tmp_path))
    assert [name.rpartition("/")[2] for name in fit.pictures.names] == [
        *("trainval0.jpg", "trainval1.png", "noted.jpeg")
    ]
    assert not fit.pictures.load().bad_files


def test_without_a_test_list_val_is_scored(tmp_path):
    write_voc(tmp_path, {"train": 3, "val": 2})
    fit, score = open_annotated(str(tmp_path))
    assert [len(fit.pictures), len(score.pictures)] == [3, 2]


def test_boxes_of_coco_are_those_that_were_drawn(tmp_path):
    written = write_coco(tmp_path, {"train2017": 3, "val2017": 2})
    for part in open_annotated(str(tmp_path)):
        assert part.classes == ("blue", "red")
        for name, objects, size in zip(part.pictures.names, part.objects, part.sizes, strict=True):
            assert size.tolist() == [40, 56]
            named = [part.classes[label] for label in objects.labels]
            found = [(kind, *box) for kind, box in zip(named, objects.boxes.tolist(), strict=True)]
            assert found == written.pop(name)
            assert objects.ignored.tolist() == [False, True]
    assert not written


def test_difficult_objects_are_marked_and_boxes_are_cut_at_the_border(tmp_path):
    write_voc(tmp_path, {"train": 1, "val": 1})
    objects = [("red", -5, 3, 20, 900), ("blue", 5, 5, 9, 9), ("red", 60, 2, 70, 8)]
    (tmp_path / "Annotations/train0.xml").write_text(xml(objects, 40, 48, difficult=(1,)))
    fit, _ = open_annotated(str(tmp_path))
    assert fit.objects[0].boxes.tolist() == [[0, 3, 20, 40], [5, 5, 9, 9]]
    assert fit.objects[0].ignored.tolist() == [False, True]


def test_the_objects_of_decoded_pictures_are_found_by_name(tmp_path):
    write_voc(tmp_path, {"train": 5, "val": 1})
    fit, _ = open_annotated(str(tmp_path))
    some = fit.pictures.subset(np.array([3, 1])).load()
    aligned = fit.of(some)
    assert aligned.objects == [fit.objects[3], fit.objects[1]]
    assert aligned.sizes.tolist() == [fit.sizes[3].tolist(), fit.sizes[1].tolist()]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_is_padded_pictures_in_the_order_of_the_epoch(tmp_path, workers):
    write_voc(tmp_path, {"train": 5, "val": 1})
    fit, _ = open_annotated(str(tmp_path))
    pictures = PaddedPictures(fit, batch_size=2, seed=1)
    batches = list(items_of(pictures, range(4), workers=workers))
    assert [len(set(b.indices.tolist())) for b in batches] == [2] * 4
    first_epoch = np.concatenate([batch.indices for batch in batches[:2]])
    assert len(set(first_epoch)) == 4
    for batch in batches:
        for padded, index in zip(batch.views[0], batch.indices.tolist(), strict=True):
            height, width = fit.sizes[index]
            picture = fit.picture(index) / 255
            assert (padded[:, :height, :width] == picture).all()
            assert padded.sum() == pytest.approx(float(picture.sum()), rel=1e-4)


def damaged(tmp_path, what: str) -> str:
    """Return a set of which one thing is wrong."""
    if what == "nothing":
        return str(tmp_path)
    if what in ("category", "escape"):
        write_coco(tmp_path, {"train": 2, "val": 1})
        path = tmp_path / "annotations/instances_train.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["category_id"] = 99 if what == "category" else 3
        content["images"][0]["file_name"] = "../../etc/x.png"
        path.write_text(json.dumps(content))
        return str(tmp_path)
    write_voc(tmp_path, {"train": 2, "val": 1})
    path = tmp_path / "Annotations/train0.xml"
    text = path.read_text()
    changes = {
        "box": text.replace("<xmin>", "<xmin>x"),
        "cut": text[:40],
        "entities": '<!DOCTYPE a [<!ENTITY b "c">]>' + text,
        "nan": text.replace("<xmin>", "<xmin>nan</xmin><xmin>"),
    }
    path.write_text(changes.get(what, text))
    if what == "list":
        (tmp_path / "ImageSets/Main/val.txt").unlink()
    if what == "gone":
        path.unlink()
    return str(tmp_path)


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("nothing", "no boxes that are understood"),
        ("category", "not a file of COCO"),
        ("escape", "lies outside"),
        ("box", "not an annotation of VOC"),
        ("cut", "not an annotation of VOC"),
        ("entities", "defines entities"),
        ("nan", "finite"),
        ("list", r"val.txt is missing"),
        ("gone", "not an annotation of VOC"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, what, complaint):
    with pytest.raises(ValueError, match=complaint):
        open_annotated(damaged(tmp_path, what))


def test_a_picture_of_another_size_than_its_annotation_is_refused(tmp_path):
    write_voc(tmp_path, {"train": 1, "val": 1})
    path = tmp_path / "Annotations/train0.xml"
    path.write_text(path.read_text().replace("<width>48", "<width>40"))
    fit, _ = open_annotated(str(tmp_path))
    with pytest.raises(ValueError, match=r"annotation says \(40, 40\)"):
        fit.picture(0)
