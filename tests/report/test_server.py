"""``swav view`` answers its own page alone, and keeps what a person says of the pictures."""

import csv
import http.client
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from browser import Opened
from PIL import Image

from swav.data.sources.pictures import Pictures
from swav.report.server import Server
from swav.run_folder.clusterings import read_cluster_names


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def server(copied: Path, pictures: Pictures) -> Iterator[Server]:
    with Server(copied, pictures) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: Server,
    path: str,
    body: object = None,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Return the status and the content of an answer; a body is sent as JSON by the page."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    sent = {"Host": server.origin.removeprefix("http://")}
    if body is not None:
        sent |= {"Origin": server.origin, "Content-Type": "application/json"}
    sent |= headers or {}
    text = None if body is None else json.dumps(body)
    address = f"/{server.token if token is None else token}/{path}"
    connection.request("GET" if body is None else "POST", address, text, sent)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


NAMES = {"clustering": "prototypes", "names": {"0": "hats", "3": 'a "b", <c>'}}
FOREIGN = (
    {"Origin": "http://example.com"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:1"},
    {"Host": "example.com"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)


@pytest.mark.parametrize("headers", FOREIGN)
def test_other_origins_are_refused(server: Server, headers: dict[str, str]) -> None:
    assert ask(server, "", headers=headers)[0] == 403
    assert ask(server, "names", NAMES, headers=headers)[0] == 403
    assert not (server.run_folder / "names.csv").exists()


@pytest.mark.parametrize("token", ["", "wrong", "%C3%A9", "x" * 32, ".."])
def test_a_wrong_token_is_refused(server: Server, token: str) -> None:
    assert ask(server, "", token=token)[0] == 403
    assert ask(server, "picture/0", token=token)[0] == 403
    assert ask(server, "names", NAMES, token=token)[0] == 403
    assert not (server.run_folder / "names.csv").exists()


def test_a_form_of_another_page_cannot_write(server: Server) -> None:
    plain = {"Content-Type": "text/plain"}
    assert ask(server, "names", NAMES, headers=plain)[0] == 400
    assert ask(server, "names", [1])[0] == 400
    assert ask(server, "names", NAMES, headers={"Content-Length": "99999999"})[0] == 413


def test_names_are_those_that_the_run_reads_and_others_stay(server: Server) -> None:
    (server.run_folder / "names.csv").write_text(
        "clustering,cluster,name\nk=12,4,cats\nprototypes,1,old\n"
    )
    status, said = ask(server, "names", NAMES)
    assert (status, said) == (200, b"saved to names.csv in the run folder")
    assert read_cluster_names(server.run_folder, "prototypes") == {0: "hats", 3: 'a "b", <c>'}
    assert read_cluster_names(server.run_folder, "k=12") == {4: "cats"}


@pytest.mark.parametrize(
    "body",
    [
        {"clustering": "../x", "names": {"0": "hats"}},
        {"clustering": "prototypes", "names": {"zero": "hats"}},
        {"clustering": "prototypes", "names": {"0": "two\nlines"}},
        {"clustering": "prototypes", "names": {"0": "long" * 99}},
        {"clustering": "prototypes", "names": ["hats"]},
        {},
    ],
)
def test_names_that_are_none_are_refused(server: Server, body: dict[str, object]) -> None:
    assert ask(server, "names", body)[0] == 400
    assert not (server.run_folder / "names.csv").exists()


def test_a_selection_is_a_file_of_paths_and_clusters(server: Server) -> None:
    status, said = ask(server, "selections", {"name": "odd ones", "rows": [12, 3]})
    assert (status, said) == (200, b"saved to selections/odd ones.csv in the run folder")
    with (server.run_folder / "selections" / "odd ones.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(server.run_folder / "embeddings.npz") as saved:
        assert [row["path"] for row in rows] == saved["paths"][[3, 12]].tolist()
    assert [row["cluster"] for row in rows] == ["0", "0"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\x00b", "x" * 81, "c:\\d"])
def test_a_selection_stays_in_its_folder(server: Server, name: str) -> None:
    assert ask(server, "selections", {"name": name, "rows": [0]})[0] == 400
    assert not (server.run_folder / "selections").exists()


@pytest.mark.parametrize("rows", [[-1], [10_000], ["x"], 3])
def test_a_selection_is_of_pictures_of_the_run(server: Server, rows: object) -> None:
    assert ask(server, "selections", {"name": "some", "rows": rows})[0] == 400


def test_pictures_open_whole_by_their_position_alone(server: Server) -> None:
    status, content = ask(server, "picture/20")
    assert status == 200
    assert Image.open(io.BytesIO(content)).size == (40, 32)
    for other in ("-1", "9999", "a.png", "../run.json", "..%2Frun.json", "1/2", "%C2%B2", ""):
        assert ask(server, f"picture/{other}")[0] == 404
    assert ask(server, "run.json")[0] == 404


def test_a_run_in_training_has_a_page_that_follows_it(server: Server, copied: Path) -> None:
    for name in ("embeddings.npz", "clusters.csv", "eval/knn.json"):
        (copied / name).unlink()
    status, first = ask(server, "")
    assert status == 200
    assert b'id="map-canvas"' not in first
    with (copied / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 500, "loss": 1.1111, "ln_k": 3.2}) + "\n")
    assert b"1.111" in ask(server, "")[1]


def test_a_folder_that_is_gone_is_said(server: Server, copied: Path) -> None:
    shutil.rmtree(copied)
    status, said = ask(server, "")
    assert status == 500
    assert b"is not a run folder" in said


def test_the_page_saves_into_the_run_folder(opened: Opened, server: Server) -> None:
    opened.open(server.address)
    page = opened.page
    page.mouse.click(*opened.places()[opened.data["cluster"].index(7)])
    number = int(page.text_content("#cluster-number"))
    page.fill("#cluster-name", "</script><b>hats")
    page.keyboard.press("Enter")
    page.click("#save-names")
    page.wait_for_selector("#map-said:has-text('saved to names.csv')")
    assert read_cluster_names(server.run_folder, "prototypes") == {number: "</script><b>hats"}
    page.click("#select-cluster")
    page.fill("#selection-name", "mine")
    page.click("#save-selection")
    page.wait_for_selector("#map-said:has-text('saved to selections/mine.csv')")
    assert (server.run_folder / "selections" / "mine.csv").is_file()
    with page.context.expect_page() as waiting:
        page.click("#map-picture a")
    picture = waiting.value
    picture.wait_for_load_state()
    assert picture.evaluate("document.images[0].naturalWidth") == 40
    assert all(address.startswith(server.address) for address in opened.requests)
    opened.open(server.address)  # the names are on the page made anew
    assert opened.data["called"] == {str(number): "</script><b>hats"}
