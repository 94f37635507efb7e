"""``swav report`` and ``swav view`` on a run, and what they refuse."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from tiny import NUM_PICTURES, tiny_config, write_pictures

import swav
from swav import cli
from swav.report.server import Server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    data = write_pictures(folder)
    swav.train(data, config=tiny_config(data, epochs=1, evaluate_at_end=False), out=folder / "run")
    return folder / "run"


def on_map(page: str) -> list[str]:
    (data,) = re.findall('<script type="application/json" id="map-data">(.*?)</script>', page)
    names: list[str] = json.loads(data)["names"]
    return names


def test_the_end_of_a_run_has_a_map_and_the_verb_makes_one_of_another_size(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = run / "report.html"
    assert len(on_map(page.read_text())) == NUM_PICTURES
    assert cli.main(["report", str(run), "--map-points", "10"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert len(on_map(page.read_text())) == 10


@pytest.mark.parametrize("points", ["4", "20001"])
def test_a_map_that_cannot_be_is_refused(
    run: Path, points: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(run), "--map-points", points]) == 1
    assert "ask for 5 to 20,000" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["report", "view"])
def test_a_folder_without_a_run_is_refused(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, str(tmp_path)]) == 1
    assert "is no run folder" in capsys.readouterr().err


def test_view_prints_where_the_page_is_and_ends_with_ctrl_c(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = []

    def serve_one(server: Server) -> None:
        pages.append(server.page())
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve_one)
    assert cli.main(["view", str(run), "--no-open-browser"]) == 0
    address = capsys.readouterr().out.split()[0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
    assert b"connect-src 'self'" in pages[0]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)
