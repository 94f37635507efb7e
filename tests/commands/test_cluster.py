"""Clusters on demand: numbers that stay, confidence, names, and what is refused."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import NUM_PICTURES, TINY_METHODS, drawn, tiny_config, write_pictures

import swav
from swav import cli
from swav.evals import Features
from swav.methods import SimCLRConfig, SwAVConfig
from swav.nn.prototypes import Prototypes
from swav.report.page import write_report
from swav.training.clusterings import DUPLICATES, Clustered, Clusterings
from swav.training.clusters import network_digest
from swav.training.trained_run import TrainedRun

PROTOTYPES = 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a run on them of SwAV, and one of SimCLR."""
    folder = tmp_path_factory.mktemp("clusters")
    data = write_pictures(folder)
    for name, method in (("run", SwAVConfig), ("simclr", SimCLRConfig)):
        made = tiny_config(data, epochs=1, evaluate_at_end=False, method=TINY_METHODS[method])
        swav.train(data, config=made, out=folder / name)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to be spoilt, where commands are run."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def clusters(path: str | Path) -> list[int]:
    return [int(row["cluster"]) for row in rows(path)]


def permuted(run: TrainedRun, order: Sequence[int], *, copied: int = 0) -> TrainedRun:
    """Return the run with its prototypes in another order: the same clusters of another network."""
    weights = next(m for m in run.objective.modules() if isinstance(m, Prototypes))
    weight = next(weights.parameters())
    with torch.no_grad():
        weight.copy_(weight[list(order)])
        weight[:copied] = weight[-1]
    return run


def write_names(text: str, run: str = "run") -> None:
    Path(run, "names.csv").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("run", ["run", "simclr"])
def test_as_many_clusters_as_asked_for_the_largest_first(folder: Path, run: str) -> None:
    made = swav.cluster(run, k=4, to="four.csv")
    found = clusters("four.csv")
    sizes = np.bincount(found, minlength=4)
    assert (np.diff(sizes) <= 0).all()
    assert sizes.sum() == NUM_PICTURES == sum(cluster.pictures for cluster in made.clusters)
    assert list(rows("four.csv")[0]) == ["path", "cluster", "probability"]
    assert (made.clustering, made.prototypes) == ("k=4", PROTOTYPES if run == "run" else 0)
    for cluster in made.clusters:
        own = [
            float(row["probability"])
            for row in rows("four.csv")
            if int(row["cluster"]) == cluster.cluster
        ]
        assert cluster.confidence == pytest.approx(np.mean(own), abs=1e-5)


def test_the_probability_is_the_softmax_of_cosines_to_centres(folder: Path) -> None:
    run = swav.load("run")
    features = run.features(run.pictures()).values
    run.cluster(k=4, to="four.csv")
    head = run.objective.cluster_head
    assert head is not None
    with np.load("run/clusterings/k=4.npz") as kept, torch.no_grad():
        assert str(kept["space"]) == "embeddings"
        centres, ids = torch.from_numpy(kept["centres"]), torch.from_numpy(kept["ids"])
        cosines = torch.nn.functional.normalize(head.projector(features), dim=1) @ centres.T
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(4))
    assert clusters("four.csv") == ids[cosines.argmax(dim=1)].tolist()
    given = [float(row["probability"]) for row in rows("four.csv")]
    expected = (cosines / head.temperature).softmax(dim=1).amax(dim=1)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    with np.load("four.npz") as beside:
        assert beside["probabilities"].astype(float).sum(axis=1) == pytest.approx(1, abs=2e-3)


def test_groups_of_prototypes_that_earlier_versions_kept_stay(folder: Path) -> None:
    run = swav.load("run")
    features = run.features(run.pictures()).values
    groups = np.arange(PROTOTYPES) % 4
    Path("run/clusterings").mkdir(exist_ok=True)
    nothing = np.zeros(0, dtype=np.int64)
    np.savez_compressed(
        "run/clusterings/k=4.npz",
        network=network_digest(run.objective),
        ids=groups,
        centres=np.zeros((0, 0), dtype=np.float32),
        paths=nothing.astype(str),
        clusters=nothing,
    )
    run.cluster(k=4, to="four.csv")
    with torch.no_grad():
        each = run.objective.cluster(features)
    assert each is not None
    sums = torch.stack([each[:, groups == cluster].sum(dim=1) for cluster in range(4)], dim=1)
    assert clusters("four.csv") == sums.argmax(dim=1).tolist()
    given = [float(row["probability"]) for row in rows("four.csv")]
    np.testing.assert_allclose(given, sums.amax(dim=1), atol=1e-6)


@pytest.mark.parametrize("number", [3, 5])
def test_auto_finds_the_number_of_separate_features(folder: Path, number: int) -> None:
    run, generator = swav.load("simclr"), np.random.default_rng(0)
    labels = np.arange(400) % number
    centres = np.linalg.qr(generator.normal(size=(16, 16)))[0]
    values = centres[labels] + generator.normal(0, 0.03, (400, 16))
    features = Features(torch.from_numpy(values).float(), None, [str(n) for n in range(400)])
    made = Clusterings(folder / "simclr", run.objective, lambda: features).of(
        features, k="auto", target=Path("some.csv")
    )
    assert made.assignment.clustering == f"k={number}"
    pairs = set(zip(made.assignment.clusters[:, 0].tolist(), labels.tolist(), strict=True))
    assert len(pairs) == number


def test_there_may_be_more_clusters_than_prototypes(folder: Path) -> None:
    swav.cluster("run", k=PROTOTYPES + 3, to="many.csv")
    assert set(clusters("many.csv")) == set(range(PROTOTYPES + 3))
    swav.cluster("run", to="own.csv")
    assert clusters("own.csv") == clusters("run/clusters.csv")


@pytest.mark.parametrize("run", ["run", "simclr"])
@pytest.mark.parametrize("k", [3, "auto"])
def test_a_picture_has_the_same_cluster_in_any_call_and_company(
    folder: Path, run: str, k: int
) -> None:
    np.savez("pictures.npz", pictures=drawn()[0][5:8])
    first = swav.cluster(run, "pictures.npz", k=k, to="few.csv")
    shutil.rmtree(f"{run}/clusterings")
    (folder / run / "embeddings.npz").unlink()
    again = swav.cluster(run, k=k, to="all.csv")
    assert first.clustering == again.clustering
    assert clusters("few.csv") == clusters("all.csv")[5:8]
    swav.cluster(run, "pictures.npz", k=k, to="few.csv")
    assert clusters("few.csv") == clusters("all.csv")[5:8]


@pytest.mark.parametrize("k", [None, 5])
def test_another_network_keeps_the_numbers_of_the_file(folder: Path, k: int | None) -> None:
    swav.load("run").cluster(k=k, to="kept.csv")
    before = clusters("kept.csv")
    order = np.random.default_rng(0).permutation(PROTOTYPES).tolist()
    shutil.copytree("run", "new", ignore=shutil.ignore_patterns("clusterings"))
    new = permuted(replace(swav.load("new"), folder=Path("new")), order)
    made = new.cluster(k=k, to="kept.csv")
    assert clusters("kept.csv") == before
    assert made.matched_with == "kept.csv"
    assert {match.old for match in made.matches} == set(before)
    assert all(match.kept == 1 for match in made.matches)
    assert new.cluster(k=k, to="other.csv").matches == ()
    assert clusters("other.csv") == before  # numbers that were given stay
    if k is None:
        new.cluster(to="anew.csv", match=False)
        assert [order[cluster] for cluster in clusters("anew.csv")] == before


def test_numbers_outlive_a_retraining_in_the_run_folder(folder: Path) -> None:
    run = swav.load("run")
    run.cluster(k=5, to="first.csv")
    changed = permuted(run, list(reversed(range(PROTOTYPES))))
    made = changed.cluster(k=5, to="second.csv")
    assert made.matched_with == "run/clusterings/k=5.npz"
    assert clusters("second.csv") == clusters("first.csv")


def test_a_clustering_of_another_number_is_not_matched(folder: Path) -> None:
    run = swav.load("run")
    run.cluster(k=5, to="one.csv")
    made = permuted(run, list(reversed(range(PROTOTYPES)))).cluster(k=4, to="one.csv")
    assert made.matched_with == ""


def test_nothing_in_common_numbers_by_size(folder: Path) -> None:
    run = swav.load("run")
    run.cluster(k=4, to="one.csv")
    text = Path("one.csv").read_text()
    Path("one.csv").write_text(text.replace("\n0", "\nother0"))
    shutil.rmtree("run/clusterings")
    made = permuted(run, list(reversed(range(PROTOTYPES)))).cluster(k=4, to="one.csv")
    assert (made.matches, made.matched_with) == ((), "")
    assert sorted(set(clusters("one.csv"))) == list(range(len(made.clusters)))


def test_a_damaged_clustering_is_made_again(folder: Path) -> None:
    swav.cluster("run", k=4, to="one.csv")
    Path("run/clusterings/k=4.npz").write_bytes(b"damaged")
    swav.cluster("run", k=4, to="two.csv")
    assert clusters("two.csv") == clusters("one.csv")


def test_nearly_equal_prototypes_are_counted(folder: Path) -> None:
    run = swav.load("run")
    before = run.cluster(k=4, to="one.csv").duplicates
    weight = next(
        next(m.parameters()) for m in run.objective.modules() if isinstance(m, Prototypes)
    )
    unit = torch.nn.functional.normalize(weight, dim=1)
    apart = (unit @ unit.T - torch.eye(PROTOTYPES)).amax().detach()
    assert (before > 0) == (float(apart) >= DUPLICATES)
    copied = permuted(run, range(PROTOTYPES), copied=2).cluster(k=4, to="two.csv", match=False)
    assert copied.duplicates >= 2


def test_names_of_this_clustering_are_a_column(folder: Path) -> None:
    write_names('clustering,cluster,name\nk=4,0,"shoes, ""low"""\nprototypes,1,hats\nk=4,1,\n')
    made = swav.cluster("run", k=4, to="four.csv")
    assert {row["name"] for row in rows("four.csv") if row["cluster"] == "0"} == {'shoes, "low"'}
    assert {row["name"] for row in rows("four.csv") if row["cluster"] != "0"} == {""}
    assert made.clusters[0].name == 'shoes, "low"'
    swav.cluster("run", k=3, to="three.csv")
    assert "name" not in rows("three.csv")[0]


def test_sheets_of_the_report_have_the_names_of_what_they_show(folder: Path) -> None:
    write_names("clustering,cluster,name\nk=4,0,<shoes>\nprototypes,0,hats\n")
    assert "Cluster 0: hats" in write_report(Path("run")).read_text()
    swav.cluster("run", k=4)
    page = write_report(Path("run")).read_text()
    assert "Cluster 0: &lt;shoes&gt;" in page
    assert "hats" not in page
    write_names("damaged")
    assert "<h3>Cluster 0</h3>" in write_report(Path("run")).read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster,name\n0,a\n", "columns clustering, cluster, name"),
        ("clustering,cluster,name\nk=4,first,a\n", "line 2: cluster 'first' is no number"),
        ("clustering,cluster,name\nfour,0,a\n", "clustering 'four'"),
        ("clustering,cluster,name\nk=4,0,a\nk=4,0,b\n", "line 3: cluster 0 of k=4 has two names"),
        ('clustering,cluster,name\nk=4,0,"a\n', "no CSV file"),
        ("", "columns"),
    ],
)
def test_damaged_names_are_refused(
    folder: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_names(text)
    assert cli.main(["cluster", "run", "--k", "4", "--to", "four.csv"]) == cli.FAILURE
    message = capsys.readouterr().err
    assert said in message
    assert "names.csv" in message
    assert not Path("four.csv").exists()


@pytest.mark.parametrize(
    ("run", "k", "said"),
    [
        ("run", "1", "from 2 upwards, or auto"),
        ("run", "65", "from 2 to 64 (the pictures of the training)"),
        ("simclr", "1", "from 2 upwards"),
        ("simclr", "65", "from 2 to 64 (the pictures of the training)"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    folder: Path, run: str, k: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["cluster", run, "--k", k, "--to", "some.csv"]) == cli.FAILURE
    assert said in capsys.readouterr().err


def test_other_arrays_beside_the_file_are_not_replaced(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["embed", "run", "--to", "photos.npz"]) == 0
    before = Path("photos.npz").read_bytes()
    assert cli.main(["cluster", "run", "--to", "photos.csv"]) == cli.FAILURE
    assert "photos.npz holds other things" in capsys.readouterr().err
    assert Path("photos.npz").read_bytes() == before
    assert cli.main(["cluster", "run", "--to", "photos.txt"]) == cli.FAILURE


def test_a_damaged_earlier_file_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swav.cluster("run", to="own.csv")
    Path("own.csv").write_text("path,cluster,probability\na,first,1\n")
    assert cli.main(["cluster", "run", "--to", "own.csv"]) == cli.FAILURE
    assert "own.csv is damaged" in capsys.readouterr().err
    assert cli.main(["cluster", "run", "--to", "own.csv", "--no-match"]) == 0
    assert clusters("own.csv") == clusters("run/clusters.csv")


def test_the_summary_is_printed_or_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_names("clustering,cluster,name\nk=4,0,[red] ones\n")
    assert cli.main(["cluster", "run", "--k", "4", "--to", "four.csv"]) == 0
    table = capsys.readouterr().out
    for said in ("four.csv (k=4)", "confidence", "[red] ones"):
        assert said in table
    assert cli.main(["cluster", "run", "--k", "4", "--to", "four.csv", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["clustering"] == "k=4"
    assert sum(cluster["pictures"] for cluster in made["clusters"]) == NUM_PICTURES
    assert made["clusters"][0].keys() == {"cluster", "name", "pictures", "confidence"}


def test_parquet_holds_the_same(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_names("clustering,cluster,name\nk=4,0,shoes\n")
    made: Clustered = swav.cluster("run", k=4, to="four.parquet")
    swav.cluster("run", k=4, to="four.csv")
    table = parquet.read_table(made.path).to_pydict()
    assert table["file_name"] == [row["path"] for row in rows("four.csv")]
    assert table["cluster"] == clusters("four.csv")
    assert [name or "" for name in table["cluster_name"]] == [
        row["name"] for row in rows("four.csv")
    ]
