"""The page holds what the run folder holds, and nothing that a browser would run or fetch."""

import base64
import csv
import io
import json
import shutil
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swav.data.sources.pictures import Pictures
from swav.report import write_report
from swav.report.heat_map import clusters_and_labels
from swav.report.page import evaluation_table
from swav.report.wording import printable
from swav.run_folder.readers import Evaluation
from swav.run_folder.result import Metric

SECTIONS = ["map", "clusters", "scores", "curves", "views", "neighbours", "bad-files", "settings"]
VOID = {"meta", "img", "input"}
HARMLESS = VOID | {"html", "head", "title", "style", "body", "header", "main", "nav", "section"}
HARMLESS |= {"article", "h1", "h2", "h3", "p", "a", "b", "strong", "span", "bdi", "div", "dl", "dt"}
HARMLESS |= {"dd", "ul", "li", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td"}
HARMLESS |= {"details", "summary", "pre", "code", "ol"}
HARMLESS |= {"script", "noscript", "canvas", "form", "label", "input", "select", "option", "button"}
DRAWN = {"svg", "g", "defs", "path", "use", "text", "tspan", "rect", "clippath"}
FETCHING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "xlink:href", "ping"}

Colours = dict[str, tuple[int, int, int]]


@dataclass
class Element:
    """An element with its attributes, children and own texts."""

    tag: str
    attributes: dict[str, str]
    children: "list[Element | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, runs of white space (no-break ones too) as one space."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())

    def all(self, tag: str | None = None, **attributes: str) -> "list[Element]":
        """Return the elements inside that have the tag and the attributes, in document order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                wanted = attributes.items() <= child.attributes.items()
                found += [child] if tag in (None, child.tag) and wanted else []
                found += child.all(tag, **attributes)
        return found

    def tiles(self) -> "list[Element]":
        """Return the pictures inside."""
        return [each for each in self.all("figure") if each.attributes.get("class") == "tile"]


class Tree(HTMLParser):
    """Builds elements; an end tag that closes nothing is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), f"an attribute stands twice in {attrs}"
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(path: Path) -> Element:
    """Return the root of a page; all its elements are closed."""
    tree = Tree()
    tree.feed(path.read_bytes().decode("utf-8"))
    tree.close()
    assert tree.open == [tree.root]
    return tree.root


def section(page: Element, name: str) -> Element:
    (found,) = page.all("section", id=name)
    return found


def centre_of(tile: Element) -> np.ndarray:
    """Return the colour in the middle of the picture that a tile holds."""
    (image,) = tile.all("img")
    kind, encoded = image.attributes["src"].split(",", 1)
    assert kind == "data:image/webp;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).convert("RGB")
    middle = picture.getpixel((picture.width // 2, picture.height // 2))
    return np.array(middle, dtype=np.int64)


@pytest.fixture(scope="module")
def page(run_folder: Path, pictures: Pictures) -> Element:
    return parse(write_report(run_folder, pictures))


def test_nothing_is_run_or_fetched(page: Element) -> None:
    for element in page.all():
        assert element.tag in HARMLESS | DRAWN
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in FETCHING:
                assert value.startswith(("#", "data:image/webp;base64,"))
            if name in {"style", "clip-path"}:
                assert "url(" not in value.replace("url(#", "")
    for style in page.all("style"):
        assert "url(" not in style.text
        assert "@import" not in style.text


def test_the_policy_comes_before_anything_it_guards(page: Element) -> None:
    (head,) = page.all("head")
    policies = {"http-equiv": "Content-Security-Policy"}
    (policy,) = head.all("meta", **policies)
    before = head.all()[: head.all().index(policy)]
    assert [each.attributes for each in before] == [{"charset": "utf-8"}]
    rules = dict(rule.split(maxsplit=1) for rule in policy.attributes["content"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == "'unsafe-inline'"
    data, script = page.all("script")
    assert data.attributes == {"type": "application/json", "id": "map-data"}
    assert script.attributes == {}
    (text,) = script.children
    assert isinstance(text, str)
    hashed = base64.b64encode(sha256(text.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{hashed}'"
    assert "connect-src" not in rules


def test_the_map_holds_every_picture_as_the_files_have_it(
    page: Element, run_folder: Path, colours: Colours
) -> None:
    data = json.loads(page.all("script")[0].text)
    assert data["names"] == [printable(name) for name in colours]
    with (run_folder / "clusters.csv").open(errors="surrogateescape", newline="") as file:
        assert data["cluster"] == [int(row["cluster"]) for row in csv.DictReader(file)]
    with np.load(run_folder / "embeddings.npz") as saved:
        values, labels = saved["embeddings"], saved["labels"]
    assert data["label"] == labels.tolist()
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(len(unit))
    assert [near[0] for near in data["near"]] == cosines.argmax(axis=1).tolist()
    (sheet,) = page.all("img", id="map-sheet")
    picture = Image.open(io.BytesIO(base64.b64decode(sheet.attributes["src"].split(",", 1)[1])))
    side, across = data["side"], picture.width // data["side"]
    for index, colour in enumerate(colours.values()):
        place = (index % across * side + side // 2, index // across * side + side // 2)
        pixel = np.array(picture.convert("RGB").getpixel(place), dtype=np.int64)
        assert abs(pixel - colour).max() <= 8


def test_hostile_texts_are_shown_as_they_are(page: Element, colours: Colours) -> None:
    titles = {tile.attributes["title"] for tile in page.tiles()}
    hostile = [name for name in colours if not name.startswith("plain")]
    assert {printable(name) for name in hostile} <= titles
    assert "right to left \\u202egpj.png" in titles
    assert "new\\nline.png" in titles
    assert "undecodable \\udcff.png" in titles
    script = "</pre></style><script>alert(1)</script>"
    assert f"A {script}" in page.all("h1")[0].text
    assert script in page.all("pre")[0].text
    assert "{{ 7 * 7 }}{% raw %}.png" in titles


def test_every_section_is_there_and_filled(page: Element) -> None:
    assert [each.attributes["id"] for each in page.all("section")] == SECTIONS
    assert not [each for each in page.all("p") if each.attributes.get("class") == "absent"]
    links = [each.attributes["href"] for each in page.all("nav")[0].all("a")]
    assert links == [f"#{name}" for name in SECTIONS]


def test_scores_are_those_of_the_files(page: Element, run_folder: Path) -> None:
    saved = json.loads((run_folder / "eval" / "knn.json").read_text())
    rows = {row.all("th")[0].text: row for row in section(page, "scores").all("tr")}
    for k in (5, 10):
        cells = [each.text for each in rows[f"top-1 accuracy, k = {k}"].all("td")]
        baselines = [saved["baselines"][name] for name in ("random", "pixels", "patch-kmeans")]
        files = [saved["metrics"], *baselines]
        for cell, metrics in zip(cells, files, strict=False):
            assert float(cell.removesuffix(" %")) == round(100 * metrics[f"top1_k{k}"], 1)
    assert cells[4] == "59.1 % \u2013 63.5 %"
    assert [each.text for each in rows["gain"].all("td")] == ["1.250", *4 * ["\u2013"]]
    bold = [name for name, row in rows.items() if row.attributes.get("class") == "best"]
    assert bold == ["top-1 accuracy, k = 5"]
    text = section(page, "scores").text
    assert "3.9 points above the untrained network (57.4 %)" in text
    assert "4.2 points below raw pixels (65.5 %)" in text
    assert "not clearly different from patch k-means (60.0 %)" in text


def test_the_first_screen_says_whether_it_is_any_good(page: Element) -> None:
    (header,) = page.all("header")
    assert "The training is healthy: the loss ended 62 % below" in header.text
    assert "Better than the untrained network in the one measure." in header.text
    worse = "Not better than raw pixels or patch k-means by nearest neighbours."
    assert worse in header.text
    assert "swav train DATA --init timm" in [each.text for each in header.all("code")]
    numbers = [
        each for each in header.all("div") if each.attributes.get("class", "").startswith("number ")
    ]
    assert 1 <= len(numbers) <= 8
    assert all("good: " in each.text for each in numbers)
    largest = [each.text for each in header.all("h3")]
    assert len(largest) == 6
    assert largest[0] == "Cluster 0"
    (scores,) = section(page, "scores").all("details")
    assert scores.all("table")
    assert "open" not in scores.attributes


def test_a_measure_without_a_baseline_is_left_out_where_others_have_one() -> None:
    metrics = {"accuracy": 0.5, "silhouette": 0.05}
    evaluation = Evaluation(
        task="some",
        title="Some",
        protocol={},
        metrics=metrics,
        about={name: Metric(title=name) for name in metrics},
        lead=None,
        intervals={},
        baselines={"random": {"accuracy": 0.4}},
    )
    table = evaluation_table(evaluation, ["random"])
    assert [row.metric for row in table.rows] == ["accuracy"]
    assert table.alone == ("silhouette",)


def test_bold_is_better_whichever_way_that_is() -> None:
    metrics = {"accuracy": 0.5, "distance": 0.5, "entropy": 0.5}
    about = {
        name: Metric(title=name, higher_is_better=way)
        for name, way in zip(metrics, (True, False, None), strict=True)
    }

    def bold(baseline: float) -> list[str]:
        evaluation = Evaluation(
            task="some",
            title="Some",
            protocol={},
            metrics=metrics,
            about=about,
            lead=None,
            intervals={},
            baselines={"pixels": dict.fromkeys(metrics, baseline)},
        )
        return [row.metric for row in evaluation_table(evaluation, ["pixels"]).rows if row.best]

    assert (bold(0.4), bold(0.5), bold(0.6)) == (["accuracy"], [], ["distance"])


def test_curves_end_at_the_last_line_of_the_log(page: Element) -> None:
    loss, codes, *_ = section(page, "curves").all("svg")
    assert {"ln K 3.258", "loss 1.234", "floor 0.900"} <= {each.text for each in loss.all("text")}
    assert {"used 0.875", "codes 0.500"} <= {each.text for each in codes.all("text")}


def test_tiles_show_the_pictures_they_name(page: Element, colours: Colours) -> None:
    by_title = {printable(name): colour for name, colour in colours.items()}
    tiles = section(page, "clusters").tiles() + section(page, "neighbours").tiles()
    assert len(tiles) > 100
    for tile in tiles:
        assert abs(centre_of(tile) - by_title[tile.attributes["title"]]).max() <= 8


def test_sheets_hold_the_surest_members_of_the_largest_clusters(
    page: Element, run_folder: Path
) -> None:
    members: dict[str, list[tuple[float, str]]] = {}
    with (run_folder / "clusters.csv").open(errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            member = (float(row["probability"]), printable(row["path"]))
            members.setdefault(row["cluster"], []).append(member)
    found = section(page, "clusters")
    sheets = {
        each.all("h3")[0].text.removeprefix("Cluster "): each for each in found.all("article")
    }
    assert len(sheets) == 24
    smallest = min(len(members[name]) for name in sheets)
    dropped = [len(members[name]) for name in members if name not in sheets]
    assert max(dropped) <= smallest
    assert f"the other {len(dropped)} hold {sum(dropped)} pictures" in found.text
    for name, sheet in sheets.items():
        assert sheet.all("p")[0].text.startswith(f"{len(members[name])} picture")
        ranked = [path for _, path in sorted(members[name], key=lambda member: -member[0])]
        shown = ranked[:12] + ranked[12:][-4:]
        assert [tile.attributes["title"] for tile in sheet.tiles()] == shown


def test_neighbours_are_the_nearest_by_cosine(page: Element, run_folder: Path) -> None:
    with np.load(run_folder / "embeddings.npz") as saved:
        values, paths = saved["embeddings"].astype(np.float64), list(map(printable, saved["paths"]))
        labels, classes = saved["labels"], saved["classes"]
    lengths = np.sqrt((values**2).sum(axis=1))
    cosines = values @ values.T / np.outer(lengths, lengths)
    queries = [
        each
        for each in section(page, "neighbours").all("div")
        if each.attributes["class"].startswith("query")
    ]
    assert len(queries) == 10
    for query in queries:
        first, *others = query.tiles()
        index = paths.index(first.attributes["title"])
        row = cosines[index]
        nearest = [each for each in np.argsort(-row) if each != index][:8]
        assert [tile.attributes["title"] for tile in others] == [paths[each] for each in nearest]
        assert [tile.text for tile in others] == [f"{row[each]:.3f}" for each in nearest]
        same = (labels[nearest] == labels[index]).sum()
        assert query.all("p")[0].text == f"{classes[labels[index]]}: {same} of 8 the same"


def test_a_folder_without_files_still_gives_every_section_a_sentence(tmp_path: Path) -> None:
    page = parse(write_report(tmp_path))
    for name in SECTIONS:
        assert [each.text for each in section(page, name).all("p", **{"class": "absent"})]
    assert page.all("h1")[0].text == "A network trained on pictures, without labels"
    assert not page.all("nav")
    assert "Whether it is any good is not known" in page.all("header")[0].text


@pytest.mark.parametrize(
    "broken",
    [
        {"clusters.csv": ["clusters"], "eval/knn.json": ["scores"], "metrics.jsonl": ["curves"]},
        {
            "embeddings.npz": ["map", "neighbours"],
            "pictures/views.npz": ["views"],
            "run.json": ["settings"],
        },
    ],
)
def test_a_broken_file_costs_its_own_section_only(
    run_folder: Path, tmp_path: Path, broken: dict[str, list[str]]
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run_folder, copied)
    for file in broken:
        (copied / file).write_bytes(b"\x00\xff not what it should be")
    page = parse(write_report(copied))
    without = [each for each in page.all("section") if each.all("p", **{"class": "absent"})]
    assert {each.attributes["id"] for each in without} == set(chain(*broken.values()))
    links = {each.attributes["href"] for each in page.all("nav")[0].all("a")}
    # config.yaml and another evaluation are still there
    empty = set(chain(*broken.values())) - {"settings", "scores"}
    assert links.isdisjoint(f"#{name}" for name in empty)


def test_without_pictures_names_stand_in_their_place(run_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run_folder, copied)
    clusters = section(parse(write_report(copied)), "clusters")
    assert "The pictures were not at hand" in clusters.text
    assert not clusters.all("img")
    assert all(tile.text == tile.attributes["title"] for tile in clusters.tiles())


@pytest.mark.usefixtures("page")
def test_the_same_run_gives_the_same_bytes(run_folder: Path, pictures: Pictures) -> None:
    first = (run_folder / "report.html").read_bytes()
    assert write_report(run_folder, pictures).read_bytes() == first
    assert len(first) < 6_000_000
    assert not list(run_folder.glob(".report*"))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder: give the --out folder"):
        write_report(tmp_path / "nowhere")


def test_heat_map_of_labels() -> None:
    held = {"0": ["cat"] * 3 + ["dog"], "1": ["dog"] * 5, "2": []}
    figure = clusters_and_labels(held, most=24)
    assert figure is not None
    assert "Labels of 2 clusters" in figure.svg
    assert all(f">{text}<" in figure.svg for text in ("75", "25", "100", "cat", "dog"))
    assert clusters_and_labels({"0": []}, most=24) is None
