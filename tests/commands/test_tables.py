"""Tables and folders of embeddings and clusters, as other programs open them."""

import csv
import io
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import NUM_PICTURES, drawn, tiny_config, write_pictures

import swav
from swav import cli
from swav.run_folder.clusterings import read_cluster_file
from swav.training.clusters import network_digest

HOSTILE = ("-rf.png", "a\n<b>.png", "…" * 60 + ".png", "it's; $(rm).png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, some of hostile names, and a run on them."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "photos").mkdir()
    for number, pixels in enumerate(drawn()[0]):
        name = HOSTILE[number] if number < len(HOSTILE) else f"{number:02d}.png"
        Image.fromarray(pixels).save(folder / "photos" / name)
    made = tiny_config(str(folder / "photos"), epochs=1, evaluate_at_end=False)
    swav.train(str(folder / "photos"), config=made, out=folder / "run")
    write_pictures(folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, where commands are run; the pictures stay where they are."""
    shutil.copytree(finished / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return finished


@pytest.fixture
def table(folder: Path) -> Any:
    """The file of ``swav cluster``, as pyarrow opens it."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    Path("run/names.csv").write_text("clustering,cluster,name\nk=4,1,shoes\n")
    swav.cluster("run", k=4, to="four.parquet", thumbnails=12)
    return parquet.read_table("four.parquet")


def test_the_columns_have_the_types_that_others_look_for(table: Any) -> None:
    run = swav.load("run")
    types = {field.name: str(field.type) for field in table.schema}
    lists = "struct<ids: list<item: int64>, distances: list<item: float>>"
    assert {name: kind.replace("element:", "item:") for name, kind in types.items()} == {
        "file_name": "string",
        "image": "struct<bytes: binary, path: string>",
        "embedding": "fixed_size_list<item: float>[16]",
        "neighbors": lists,
        "x": "float",
        "y": "float",
        "cluster": "int64",
        "cluster_name": "string",
        "probability": "float",
        "distance": "float",
    }
    assert table.schema.metadata[b"swav.network"].decode() == network_digest(run.objective)
    assert table.schema.metadata[b"swav.clustering"] == b"k=4"


def test_the_values_are_those_of_the_features(table: Any) -> None:
    run = swav.load("run")
    features = run.features(run.pictures())
    rows = table.to_pylist()
    unit = F.normalize(features.values, dim=1)
    np.testing.assert_array_equal([row["embedding"] for row in rows], features.values.numpy())
    assert [row["file_name"] for row in rows] == list(features.names)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    best = cosines.topk(10, dim=1)
    distances = [row["neighbors"]["distances"] for row in rows]
    np.testing.assert_allclose(distances, 1 - best.values.numpy(), atol=1e-5)
    assert all(row not in rows[row]["neighbors"]["ids"] for row in range(NUM_PICTURES))
    for cluster in {row["cluster"] for row in rows}:
        own = torch.tensor([row["cluster"] == cluster for row in rows])
        middle = F.normalize(unit[own].mean(dim=0), dim=0)
        given = [row["distance"] for row in rows if row["cluster"] == cluster]
        np.testing.assert_allclose(given, 1 - unit[own] @ middle, atol=1e-5)
    assert {row["cluster_name"] for row in rows if row["cluster"] == 1} == {"shoes"}
    assert {row["cluster_name"] for row in rows if row["cluster"] != 1} == {None}
    picture = Image.open(io.BytesIO(rows[5]["image"]["bytes"]))
    assert (picture.format, picture.size) == ("JPEG", (12, 12))


def test_pandas_and_duckdb_open_it(table: Any) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.read_parquet("four.parquet")
    assert len(frame) == NUM_PICTURES
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    asked = "select cluster, count(*) from 'four.parquet' group by cluster order by cluster"
    counted = frame.groupby("cluster").size()
    assert dict(duckdb.sql(asked).fetchall()) == counted.to_dict()
    near = "select list_cosine_similarity(embedding, embedding) from 'four.parquet' limit 1"
    assert duckdb.sql(near).fetchall()[0][0] == pytest.approx(1)


def test_datasets_opens_it_with_its_pictures(table: Any) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    opened = datasets.Dataset.from_parquet("four.parquet").cast_column("image", datasets.Image())
    assert opened[0]["image"].size == (12, 12)


def test_embeddings_of_one_picture_and_thumbnails_elsewhere(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    one = str(folder / "photos/30.png")
    assert cli.main(["embed", "run", one, "--to", "one.parquet"]) == 0
    assert parquet.read_table("one.parquet").column_names == ["file_name", "embedding"]
    swav.embed("run", to="all.parquet")
    names = parquet.read_table("all.parquet").column_names
    assert names == ["file_name", "embedding", "neighbors", "x", "y"]
    with pytest.raises(ValueError, match=r"\.parquet alone"):
        swav.embed("run", to="all.npz", thumbnails=64)


@pytest.mark.parametrize("names", ["path", "file_name"])
def test_files_of_earlier_versions_are_read(names: str, table: Any) -> None:
    from pyarrow import parquet

    columns = {"file_name": names}
    renamed = table.rename_columns([columns.get(name, name) for name in table.column_names])
    parquet.write_table(renamed, "four.parquet")
    found = read_cluster_file(Path("four.parquet"))
    assert found is not None
    assert (
        found.by_path["30.png"]
        == table["cluster"][table["file_name"].index("30.png").as_py()].as_py()
    )


def members(folder: str) -> dict[str, list[Path]]:
    return {
        inside.name: sorted(inside.iterdir())
        for inside in sorted(Path(folder).iterdir())
        if inside.is_dir()
    }


def test_a_folder_of_links_has_every_picture_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run/names.csv").write_text("clustering,cluster,name\nk=4,1,../dogs\n")
    assert cli.main(["cluster", "run", "--k", "4", "--to", "groups/"]) == 0
    assert f"{NUM_PICTURES} rows written to groups/clusters.csv" in capsys.readouterr().out
    with Path("groups/clusters.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    linked = members("groups")
    assert "0001 .._dogs" not in linked
    for row in rows:
        inside = next(
            paths for name, paths in linked.items() if int(name[:4]) == int(row["cluster"])
        )
        targets = [Path(os.readlink(path)) for path in inside]
        assert folder / "photos" / row["path"] in targets
    every = [path for paths in linked.values() for path in paths]
    assert len(every) == NUM_PICTURES
    assert all(path.is_symlink() and path.exists() for path in every)
    first = max((row for row in rows if row["cluster"] == "0"), key=lambda row: row["probability"])
    assert Path(os.readlink(linked["0000"][0])).name == first["path"]

    Path("groups/0000/notes.txt").write_text("mine")
    assert cli.main(["cluster", "run", "--k", "2", "--to", "groups"]) == 0
    assert sorted(members("groups")) == ["0000", "0001"]
    assert Path("groups/0000/notes.txt").read_text() == "mine"
    assert sum(map(len, members("groups").values())) == NUM_PICTURES + 1


def test_pictures_that_cannot_be_linked_to_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        swav.cluster("run", str(folder / "drawn.npz"), k=2, to="arrays/")
    assert f"{NUM_PICTURES} pictures are copies" in caplog.text
    copies = [path for paths in members("arrays").values() for path in paths]
    for path in copies:
        with Image.open(path) as copy:
            assert copy.size == (20, 20)

    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    swav.cluster("run", k=2, to="files/")
    files = [path for paths in members("files").values() for path in paths]
    assert len(files) == NUM_PICTURES
    assert not any(path.is_symlink() for path in files)


def test_a_folder_of_other_things_is_left_alone(folder: Path) -> None:
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    for other in ("mine", "run"):
        with pytest.raises(ValueError, match="holds other things than clusters"):
            swav.cluster("run", to=other)
    assert [path.name for path in Path("mine").iterdir()] == ["letter.txt"]


def test_pictures_of_people_are_never_removed(folder: Path) -> None:
    swav.cluster("run", k=2, to="groups/")
    Path("groups/2024").mkdir()
    Path("groups/2024/0001_holiday.jpg").write_text("mine")
    with Path("groups/links.txt").open("a") as listed:
        listed.write("../run/config.yaml\n0000/../../run/config.yaml\n")
    swav.cluster("run", k=2, to="groups/")
    assert Path("groups/2024/0001_holiday.jpg").read_text() == "mine"
    assert Path("run/config.yaml").exists()
