"""Tables hold what they were given, and nothing that a spreadsheet would calculate."""

import csv
from pathlib import Path

import numpy as np

from swav.run_folder.clusterings import read_cluster_file
from swav.run_folder.readers import csv_path
from swav.run_folder.writers import (
    write_cluster_probabilities,
    write_clusters,
    write_embeddings,
)

NAMES = ['=HYPERLINK("http://x","y")&".png', "+1.png", "-1.png", "@a.png", "plain.png", "./own.png"]
FORMULAS = 4


def test_names_are_no_formulas_and_come_back(tmp_path: Path) -> None:
    path, rows = tmp_path / "clusters.csv", np.arange(len(NAMES))
    write_clusters(path, NAMES, rows, np.ones(len(NAMES)), {0: "=1+1", 4: "cats"})
    write_cluster_probabilities(
        path.with_suffix(".npz"), rows[:, None], np.ones((len(NAMES), 1)), clustering="prototypes",
        network="abc",
    )  # fmt: skip
    with path.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["path"] for row in written] == [
        *(f"./{name}" for name in NAMES[:FORMULAS]),
        *NAMES[FORMULAS:],
    ]
    assert [written[0]["name"], written[4]["name"]] == ["'=1+1", "cats"]
    found = read_cluster_file(path)
    assert found is not None
    assert dict(found.by_path) == {name: row for row, name in enumerate(NAMES)}
    write_embeddings(tmp_path / "e.csv", np.zeros((len(NAMES), 1)), NAMES)
    with (tmp_path / "e.csv").open(newline="") as file:
        assert [csv_path(row["path"]) for row in csv.DictReader(file)] == NAMES
