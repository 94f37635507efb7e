"""One picture is enough for every verb; its neighbours, odd ones out and duplicates."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import NUM_PICTURES, drawn, tiny_config

import swav
from swav import cli
from swav.evals import Features
from swav.training.searching import SAME, duplicates, odd_ones

HOSTILE = "<img src=x onerror=alert(1)>.png"
COPIES = (("07.png", "copy.png"), ("09.png", HOSTILE))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of pictures, two of them copied, and a run on them."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "photos").mkdir()
    for number, pixels in enumerate(drawn()[0]):
        Image.fromarray(pixels).save(folder / f"photos/{number:02d}.png")
    for original, copy in COPIES:
        shutil.copy(folder / "photos" / original, folder / "photos" / copy)
    data = str(folder / "photos")
    made = tiny_config(data, epochs=1, evaluate_at_end=False)
    swav.train(data, config=made, out=folder / "run")
    return folder


@pytest.fixture
def folder(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_picture_a_list_of_paths_and_images_are_data_for_all(folder: Path) -> None:
    run = swav.load("run")
    every = run.features(run.pictures())
    expected = every.values[list(every.names).index("03.png")][None]
    image = Image.open("photos/03.png")
    for data in ("photos/03.png", Path("photos/03.png"), ["photos/03.png"], image, [image]):
        torch.testing.assert_close(swav.embed("run", data, to="features.npz").values, expected)
    names = run.features(run.pictures(["photos/03.png", Path("photos/04.png")])).names
    assert list(names) == ["photos/03.png", "photos/04.png"]
    kept = Path("run/clusters.csv").read_bytes()
    assert cli.main(["cluster", "run", "photos/03.png"]) == 0
    assert [row["path"] for row in rows("03-clusters.csv")] == ["03.png"]
    assert Path("run/clusters.csv").read_bytes() == kept
    assert cli.main(["embed", "run", "photos/03.png"]) == 0
    assert Path("03-embeddings.npz").exists()
    torch.testing.assert_close(swav.embed("run", image).values, expected)
    swav.cluster("run", image, to="one.csv")
    assert swav.evaluate("run", [f"photos/{n:02d}.png" for n in range(30)], ["clusters"])


def test_data_that_cannot_be_mixed_or_learnt_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="paths or pictures alone"):
        swav.from_arrays(["photos/03.png", drawn()[0][0]])
    assert cli.main(["train", "photos/03.png", "--out", "none"]) == cli.FAILURE
    assert "1 picture cannot be told from any other" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--in", "photos"]])
def test_the_nearest_are_those_of_brute_force(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "run", "photos/11.png", *words, "--top", "5", "--to", "near.csv"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "5 rows written to near.csv" in printed
    run = swav.load("run")
    every = run.features(run.pictures())
    unit = F.normalize(every.values, dim=1)
    cosines = unit @ unit[list(every.names).index("11.png")]
    best = cosines.argsort(descending=True, stable=True)[:5]
    found = rows("near.csv")
    assert found[0]["path"] == "11.png"
    assert [row["rank"] for row in found] == list("12345")
    given = [float(row["cosine"]) for row in found]
    np.testing.assert_allclose(given, cosines[best].numpy(), atol=1e-5)
    assert found[1]["path"] in printed


def test_a_crop_is_searched_for_as_a_picture_of_its_own(folder: Path) -> None:
    Image.open("photos/05.png").crop((2, 3, 14, 13)).save("part.png")
    by_box = swav.search("run", "photos/05.png", crop="2,3,12,10", top=3)
    by_file = swav.search("run", "part.png", top=3)
    assert [row[1:3] for row in by_box] == [row[1:3] for row in by_file]
    for crop, said in (("15,3,12,10", "20 x 20"), ("-1,0,2,2", "from 0"), ("1,2,3", "x,y,width")):
        with pytest.raises(ValueError, match=said):
            swav.search("run", "photos/05.png", crop=crop)
    with pytest.raises(ValueError, match="of one picture"):
        swav.search("run", "photos", crop="0,0,4,4")


def test_copies_are_found_and_told_from_near_duplicates(folder: Path) -> None:
    found = swav.load("run").duplicates(cosine=1.0)
    groups: dict[int, set[str]] = {}
    for row in found:
        groups.setdefault(row.group, set()).add(row.path)
    assert set(COPIES[0]) in groups.values()
    assert set(COPIES[1]) in groups.values()
    copies = {row.path for row in found if row.same_pixels}
    assert copies == {name for pair in COPIES for name in pair}
    assert all(row.cosine >= SAME for row in found)


def test_chains_are_one_group_and_equal_pictures_need_no_direction(folder: Path) -> None:
    angles = torch.tensor([0.0, 0.15, 0.3, 2.0, 2.1, 4.0])
    values = torch.stack([angles.cos(), angles.sin()], dim=1)
    values = torch.cat([values, -values])  # the mean is zero
    features = Features(values, None, [f"{number}.png" for number in range(12)])
    pictures = swav.load("run").open()
    groups = [row.group for row in duplicates(features, pictures, cosine=float(np.cos(0.16)))]
    assert groups == [1, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    two = swav.load("run").duplicates([f"photos/{name}" for name in COPIES[0]])
    assert [row.same_pixels for row in two] == [True, True]


def test_the_odd_one_is_far_from_its_five_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.ones(20, 8) + 0.05 * torch.randn(20, 8, generator=generator)
    values[13] = -values[13]
    features = Features(values, None, [str(number) for number in range(20)])
    first, *_ = odd_ones(features, top=3)
    unit = F.normalize(values, dim=1)
    cosines = (unit @ unit[13]).sort(descending=True).values[1:6]
    assert first.path == "13"
    assert first.distance == pytest.approx(float((1 - cosines).mean()), abs=1e-6)


def test_pages_show_pictures_and_run_no_script(folder: Path) -> None:
    for words in (["photos/09.png"], ["--odd", "--top", "70"], ["--duplicates"]):
        assert cli.main(["search", "run", *words, "--to", "page.html"]) == 0
        page = Path("page.html").read_text("utf-8")
        assert "default-src 'none'" in page
        assert "<script" not in page
        assert "<img src=x" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
        assert page.count("data:image/webp") >= 4
        assert "http://" not in page
        assert "https://" not in page
    assert swav.search("run", odd=True, top=1000)[-1].rank == NUM_PICTURES + len(COPIES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a picture"),
        (["photos/09.png", "--odd"], "give a picture"),
        (["--odd", "--crop", "0,0,2,2"], "--crop is of a picture"),
        (["--odd", "--to", "odd.txt"], ".csv, .html"),
        (["--odd", "--top", "0"], "top 0"),
        (["--odd", "--in", "photos/03.png"], "one picture alone"),
        (["--duplicates", "--cosine", "2"], "(0, 1]"),
    ],
)
def test_what_cannot_be_asked(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["search", "run", *words]) == cli.USAGE
    assert said in capsys.readouterr().err
