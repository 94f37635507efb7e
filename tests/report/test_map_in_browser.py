"""The map in Chromium: it shows, selects and saves what it should, and fetches nothing."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from browser import Opened

from swav.data.sources.pictures import Pictures
from swav.report import write_report
from swav.report.wording import printable
from swav.run_folder.clusterings import read_cluster_names

Colours = dict[str, tuple[int, int, int]]


@pytest.fixture(scope="module")
def report(run_folder: Path, pictures: Pictures) -> str:
    return write_report(run_folder, pictures).as_uri()


def pixel(opened: Opened, x: float, y: float) -> list[int]:
    """Return the colour of the canvas at a place of the window."""
    found: list[int] = opened.page.evaluate(
        """([x, y]) => {
          const canvas = document.getElementById("map-canvas");
          const box = canvas.getBoundingClientRect();
          return [...canvas.getContext("2d").getImageData(x - box.left, y - box.top, 1, 1).data];
        }""",
        [x, y],
    )
    return found[:3]


def download(opened: Opened, button: str) -> tuple[str, bytes]:
    """Return the name and the content of the file that a button saves."""
    with opened.page.expect_download() as waiting:
        opened.page.click(button)
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize(("width", "dark"), [(400, False), (420, True), (1600, False)])
def test_nothing_is_fetched_and_nothing_is_off_screen(
    opened: Opened, report: str, width: int, dark: bool
) -> None:
    opened.page.emulate_media(color_scheme="dark" if dark else "light")
    opened.open(report, width=width)
    opened.page.wait_for_timeout(100)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.page.evaluate("performance.getEntriesByType('resource').length") == 0
    assert opened.requests == []


def test_the_pointer_shows_the_picture_below_it(
    opened: Opened, report: str, colours: Colours
) -> None:
    opened.open(report)
    places = opened.places()
    index = max(range(len(places)), key=lambda each: places[each][1])  # room above it
    x, y = places[index]
    opened.page.mouse.move(x + 1, y + 1)
    opened.page.wait_for_timeout(100)
    name = opened.data["names"][index]
    assert opened.page.get_attribute("#map-canvas", "title").startswith(f"{name}, cluster ")
    by_name = {printable(each): colour for each, colour in colours.items()}
    shown = pixel(opened, x + 14 + 48, y - 14 - 48)
    assert max(abs(a - b) for a, b in zip(shown, by_name[name], strict=True)) <= 8


def test_the_lasso_selects_what_it_encloses_and_saves_it(opened: Opened, report: str) -> None:
    opened.open(report)
    places = opened.places()
    xs, ys = (sorted(values) for values in zip(*places, strict=True))
    left, right = xs[0] - 6, (xs[29] + xs[30]) / 2
    top, bottom = ys[0] - 6, (ys[39] + ys[40]) / 2
    opened.page.click("#map-lasso")
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    opened.page.mouse.move(*corners[0])
    opened.page.mouse.down()
    for corner in corners[1:]:
        opened.page.mouse.move(*corner, steps=4)
    opened.page.mouse.up()
    expected = [
        index for index, (x, y) in enumerate(places) if left < x < right and top < y < bottom
    ]
    assert 0 < len(expected) < len(places)
    noun = "picture" if len(expected) == 1 else "pictures"
    assert opened.said == f"{len(expected)} {noun} selected"
    opened.page.fill("#selection-name", "corner")
    name, content = download(opened, "#save-selection")
    assert name == "corner.csv"
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    data = opened.data
    assert [int(row["row"]) for row in rows] == expected
    assert [row["path"] for row in rows] == [data["names"][index] for index in expected]
    assert [int(row["cluster"]) for row in rows] == [data["cluster"][each] for each in expected]


def test_names_are_saved_as_the_run_reads_them(opened: Opened, report: str, tmp_path: Path) -> None:
    opened.open(report)
    index = opened.data["cluster"].index(7)
    opened.page.mouse.click(*opened.places()[index])
    shown = opened.page.text_content("#map-name")
    number = int(opened.page.text_content("#cluster-number"))
    assert opened.data["cluster"][opened.data["names"].index(shown)] == number
    called = 'hats, "red" <b>'
    opened.page.fill("#cluster-name", called)
    opened.page.keyboard.press("Enter")
    assert opened.page.text_content("#map-about").startswith(f"cluster {number}: {called}")
    name, content = download(opened, "#save-names")
    (tmp_path / name).write_bytes(content)
    assert read_cluster_names(tmp_path, "prototypes") == {number: called}


def test_the_keyboard_alone_reaches_everything(opened: Opened, report: str) -> None:
    opened.open(report)
    page: Any = opened.page
    page.focus("#save-names")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "map-canvas"
    seen = []
    page.keyboard.press("Enter")
    for _ in range(4):
        seen.append(page.text_content("#map-name"))
        assert opened.said.startswith(seen[-1])
        page.keyboard.press("Tab")
    assert len(set(seen)) == 4
    page.keyboard.press(" ")
    assert opened.said == "1 picture selected"
    page.keyboard.press("Escape")
    for key in ("ArrowLeft", "ArrowDown", "+", "-", "0"):
        page.keyboard.press(key)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.panel') !== null")


def test_all_members_of_a_cluster_open_on_a_click(opened: Opened, report: str) -> None:
    opened.open(report)
    opened.page.click('button[data-cluster="0"]')
    members = opened.data["cluster"].count(0)
    assert opened.said == f"{members} pictures selected"
    assert opened.page.locator("#map-selected button").count() == members


def test_what_is_found_can_be_selected(opened: Opened, report: str) -> None:
    opened.open(report)
    opened.page.fill("#map-find", "plain00")
    assert opened.said == "10 pictures found"
    opened.page.click("#select-found")
    assert opened.said == "10 pictures selected"


def test_two_fingers_zoom_about_their_middle(opened: Opened, report: str) -> None:
    opened.open(report)
    places = opened.places()
    middle, other = places[0], places[1]
    touch = opened.page.context.new_cdp_session(opened.page)

    def fingers(kind: str, *gaps: float) -> None:
        points = [{"x": middle[0] + gap, "y": middle[1], "id": n} for n, gap in enumerate(gaps)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def pointed_at(place: tuple[float, float]) -> str:
        opened.page.mouse.move(*place)
        title: str = opened.page.get_attribute("#map-canvas", "title")
        return title

    titles = pointed_at(middle), pointed_at(other)
    fingers("touchStart", -20, 20)
    fingers("touchMove", -40, 40)
    fingers("touchEnd")
    opened.page.wait_for_timeout(100)
    twice = tuple(2 * there - here for here, there in zip(middle, other, strict=True))
    assert (pointed_at(middle), pointed_at(twice)) == titles


def test_sheets_are_ordered_and_found(opened: Opened, report: str) -> None:
    opened.open(report)
    page = opened.page
    sheets = page.locator("#sheets > article")

    def tightness() -> list[float]:
        return [
            float(text) for text in sheets.evaluate_all("all => all.map(x => x.dataset.tightness)")
        ]

    page.select_option("#sheet-order", "tightness")
    assert tightness() == sorted(tightness(), reverse=True)
    page.fill("#sheet-find", page.locator("#sheets h3").nth(1).text_content())
    assert page.locator("#sheets > article:visible").count() == 1
    page.fill("#sheet-find", "")
    assert page.locator("#sheets > article:visible").count() == sheets.count() > 1
