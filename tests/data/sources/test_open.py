"""DATA of every form: which pictures, in which order, with which labels."""

import csv
import os
import pickle
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import fill, opened, png, same

from swav.data.sources.open import splits


@pytest.mark.parametrize(
    ("names", "labels", "classes"),
    [
        (["b.png", "a.jpg"], None, ()),
        (["dog/1.png", "cat/1.png", "cat/2.png"], [0, 0, 1], ("cat", "dog")),
        (["10/1.png", "9/1.png"], [1, 0], ("9", "10")),
        (["cat/1.png", "cat/2.png"], None, ()),
        (["cat/1.png", "dog/1.png", "2.png"], None, ()),
        (["2020/may/1.png", "2021/june/1.png"], None, ()),
    ],
    ids=["flat", "classes", "numbered classes", "one class", "mixed", "nested"],
)
def test_labels_are_one_folder_a_class(
    tmp_path: Path, names: list[str], labels: list[int] | None, classes: tuple[str, ...]
):
    pictures = opened(fill(tmp_path, names))
    assert list(pictures.names) == sorted(names)
    assert (None if pictures.labels is None else pictures.labels.tolist()) == labels
    assert pictures.classes == classes
    assert pictures.facts().num_classes == len(classes)


def test_only_pictures_count_and_hidden_ones_do_not(tmp_path: Path):
    fill(
        tmp_path, ["a.png", "b.JPG", "notes.txt", ".hidden.png", ".thumbs/a.png", "__MACOSX/c.png"]
    )
    assert list(opened(tmp_path).names) == ["a.png", "b.JPG"]


def test_parts_share_their_class_numbers(tmp_path: Path):
    names = ["train/b/1.png", "train/a/1.png", "train/c/1.png", "validation/c/1.png"]
    fill(tmp_path, [*names, "validation/b/1.png"])
    assert splits(str(tmp_path)) == ("train", "val")
    assert list(opened(tmp_path).names) == ["a/1.png", "b/1.png", "c/1.png"]
    held_out = opened(tmp_path, split="val")
    assert held_out.classes == ("a", "b", "c")
    assert held_out.labels.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"'test'.*parts train, val"):
        opened(tmp_path, split="test")


@pytest.mark.parametrize("extra", ["1.png", "other/1.png"])
def test_other_things_beside_train_make_it_one_set(tmp_path: Path, extra: str):
    fill(tmp_path, ["train/a.png", "test/a.png", extra])
    assert splits(str(tmp_path)) == ()
    assert len(opened(tmp_path)) == 3
    with pytest.raises(ValueError, match="without parts"):
        opened(tmp_path, split="train")


def test_loops_of_links_end(tmp_path: Path):
    root = fill(tmp_path / "outer" / "root", [f"sub/{place}.png" for place in range(10)])
    (root / "again").symlink_to(root)
    (root / "sub" / "up").symlink_to(root)
    (root / "out").symlink_to(tmp_path)
    (root / "a_twin").symlink_to(root / "sub")
    start = time.process_time()
    pictures = opened(root)
    assert time.process_time() - start < 0.5
    assert list(pictures.names) == [f"sub/{place}.png" for place in range(10)]
    assert not pictures.bad_files


def test_links_to_pictures_and_folders_elsewhere_are_followed(tmp_path: Path):
    fill(tmp_path / "elsewhere", ["a.png"])
    root = fill(tmp_path / "root", ["b.png"])
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "c.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert list(opened(root).names) == ["b.png", "c.png", "linked/a.png"]


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path):
    fill(tmp_path, ["good.png"])
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "none.png").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "s.png"))
    pictures = opened(tmp_path, max_bad_fraction=0.9)
    assert list(pictures.names) == ["good.png"]
    assert dict(pictures.load().bad_files) == {
        "gone.png": "a link that leads nowhere",
        "none.png": "the file is empty",
        "pipe.png": "not a regular file",
        "s.png": "not a regular file",
    }


LOST_LINKS = {
    "itself.png": "Too many levels of symbolic links",
    "long.png": "File name too long",
    "lost": "a link that leads nowhere",
    "lost.png": "a link that leads nowhere",
    "round": "Too many levels of symbolic links",
}


def _add_lost_links(folder: Path):
    """Add every link that leads nowhere, and hidden ones that nobody asked for."""
    for name in ("itself.png", "round"):
        (folder / name).symlink_to(name)
    (folder / "long.png").symlink_to("n" * 256)
    for name in ("lost", "lost.png", ".hidden", "._lost.png"):
        (folder / name).symlink_to("nowhere")


def test_links_that_lead_nowhere_cost_no_other_picture(tmp_path: Path):
    names = [f"{place:03d}.png" for place in range(50)]
    _add_lost_links(fill(tmp_path, names))
    pictures = opened(tmp_path, max_bad_fraction=0.2)
    assert list(pictures.names) == names
    assert dict(pictures.bad_files) == LOST_LINKS
    with pytest.raises(ValueError, match="5 of 55 pictures"):
        opened(tmp_path, max_bad_fraction=0.05).load()


@pytest.mark.parametrize("parts", [(), ("train", "val")], ids=["classes", "parts"])
def test_links_that_lead_nowhere_in_a_tree(tmp_path: Path, parts: tuple[str, ...]):
    for part in parts or (".",):
        fill(tmp_path, [f"{part}/{name}/1.png" for name in ("bush", "tree")])
        for folder in (tmp_path / part, tmp_path / part / "tree"):
            _add_lost_links(folder)
    assert splits(str(tmp_path)) == parts
    pictures = opened(tmp_path, max_bad_fraction=0.9)
    assert (list(pictures.names), pictures.classes) == (
        ["bush/1.png", "tree/1.png"],
        ("bush", "tree"),
    )
    inside = {f"tree/{name}": reason for name, reason in LOST_LINKS.items()}
    assert dict(pictures.bad_files) == LOST_LINKS | inside


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_folders_that_cannot_be_entered_cost_no_other_picture(tmp_path: Path):
    fill(tmp_path / "closed", ["in/1.png"])
    root = fill(tmp_path / "root", ["a/1.png", "b/1.png", "c/1.png"])
    (root / "b" / "linked.png").symlink_to(tmp_path / "closed" / "in" / "1.png")
    (root / "linked").symlink_to(tmp_path / "closed" / "in")
    for closed in (tmp_path / "closed", root / "c"):
        closed.chmod(0)
    try:
        pictures = opened(root, max_bad_fraction=0.9)
    finally:
        for closed in (tmp_path / "closed", root / "c"):
            closed.chmod(0o700)
    assert list(pictures.names) == ["a/1.png", "b/1.png"]
    assert dict(pictures.bad_files) == {
        "b/linked.png": "Permission denied",
        "c": "the folder cannot be read: Permission denied",
        "linked": "Permission denied",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_closed_part_does_not_stop_the_others(tmp_path: Path):
    fill(tmp_path, ["train/a/1.png", "train/b/1.png", "val/a/1.png"])
    (tmp_path / "val").chmod(0)
    try:
        assert list(opened(tmp_path).names) == ["a/1.png", "b/1.png"]
        with pytest.raises(ValueError, match=r"that can be read:\s.*Permission denied"):
            opened(tmp_path, split="val")
    finally:
        (tmp_path / "val").chmod(0o700)


def test_any_name_of_a_file_will_do(tmp_path: Path):
    names = [os.fsdecode(b"caf\xe9.png"), "two\nlines.png", "n" * 251 + ".png", "日本.png"]
    for name in names:
        (tmp_path / name).write_bytes(png())
    pictures = pickle.loads(pickle.dumps(opened(tmp_path)))
    assert list(pictures.names) == sorted(names, key=os.fsencode)
    assert pictures.load().pixels.shape == (4, 3, 4, 6)


def test_a_list_names_its_pictures_from_its_own_folder(tmp_path: Path):
    fill(tmp_path, ["p/1.png", "p/2.png"])
    (tmp_path / "list.txt").write_text("# mine\np/2.png\n\np/1.png\n")
    pictures = opened(tmp_path / "list.txt")
    assert list(pictures.names) == ["p/2.png", "p/1.png"]
    assert torch.equal(pictures[1], opened(tmp_path / "p")[0])


def test_a_table_has_paths_and_labels(tmp_path: Path):
    fill(tmp_path, ["1.png", "a,b.png", "3.png"])
    rows = [("tree", "1.png"), ("bush", "a,b.png"), ("tree", str(tmp_path / "3.png"))]
    with open(tmp_path / "table.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("label", "path"), *rows])
    pictures = opened(tmp_path / "table.csv").load()
    assert pictures.classes == ("bush", "tree")
    assert pictures.labels.tolist() == [1, 0, 1]
    assert same(pictures, opened(tmp_path).subset(np.array([0, 2, 1])))


def test_blanks_in_the_head_of_a_table_and_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(fill(tmp_path / "home", ["1.png", "2.png"])))
    (tmp_path / "table.csv").write_text("path , label\n~/1.png,a\n~/2.png,b\n")
    pictures = opened(tmp_path / "table.csv")
    assert pictures.labels.tolist() == [0, 1]
    (tmp_path / "list.txt").write_text("~/2.png\n~/1.png\n")
    assert torch.equal(opened(tmp_path / "list.txt")[0], pictures[1])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path\n" + "x" * 200_000, "cannot be read as a table"),
        ('path,label\n1.png,"a\n' + "2.png,b\n" * 50_000, "is a quotation mark left open"),
        ("paths\n1.png\n", "is it 'paths'"),
        ("path,label\n1.png,\n", "no label for '1.png'"),
        ("path\n", "names no picture"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, table: str, message: str):
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "table.csv")
