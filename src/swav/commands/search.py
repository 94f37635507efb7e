"""``swav search``: the pictures nearest to one, those like no other, and duplicates."""

import csv
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from swav.config import UsageError
from swav.data.sources.open import Data
from swav.report.gallery_page import Shelf, write_gallery
from swav.report.thumbnails import Album
from swav.report.wording import printable
from swav.run_folder.atomic import replacing
from swav.training.searching import (
    DUPLICATE_COSINE,
    ODD_NEIGHBOURS,
    Duplicate,
    Match,
    Odd,
    cropped,
)
from swav.training.trained_run import TrainedRun, load

SHOWN = 40
"""Rows of the table; the file has all."""
MOST_SHELVES = 200
"""Of the page."""

Row = Match | Odd | Duplicate


def search(
    run: str | PathLike[str],
    picture: Data | None = None,
    /,
    among: Data | None = None,
    *,
    top: int = 10,
    crop: str | None = None,
    odd: bool = False,
    duplicates: bool = False,
    cosine: float = DUPLICATE_COSINE,
    to: str | Path | None = None,
    device: str = "auto",
    allow_factory: Sequence[str] = (),
) -> list[Row]:
    """Find pictures by the features of a run, exactly, and print them as a table.

    Of a picture the nearest by cosine (one that is in the set finds itself); with --odd those whose
    five nearest neighbours are farthest, by the mean of 1 - cosine; with --duplicates groups linked
    by pairs with the same pixels, or centred features with at least the cosine of --cosine.

    Args:
        run: run folder.
        picture: what to look for: a picture, or several, each for itself.
        among: pictures that can be found; by default those of the training.
        top: how many pictures to find, for each that is looked for.
        crop: box x,y,width,height of the picture to look for, in its pixels.
        odd: list the odd ones out instead.
        duplicates: list groups of duplicates instead.
        cosine: from which two pictures are duplicates.
        to: ``.csv``, or ``.html`` for a page of thumbnails that needs no network.
        device: auto, cpu, cuda, mps, or one device such as cuda:1.
        allow_factory: ``package.module:function`` that the run may name as its backbone.

    Raises:
        ValueError: if it is not clear what to look for, or the box is not inside of the picture.
    """
    if (picture is not None) + odd + duplicates != 1:
        raise UsageError("give a picture to look for, or one of --odd and --duplicates")
    if crop is not None and picture is None:
        raise UsageError("--crop is of a picture to look for: give one")
    if to is not None and Path(to).suffix not in (".csv", ".html"):
        raise UsageError(f"{to}: name a file that ends with .csv, .html")
    numbers = None if crop is None else _box(crop)
    opened = load(run, device=device, allow_factory=allow_factory)
    rows: list[Row] = []
    if picture is not None:
        rows += opened.search(picture, among, top=top, crop=numbers)
        title = f"Nearest pictures by the cosine of the features of {Path(run).resolve().name}"
    elif odd:
        rows += opened.odd(among, top=top)
        title = f"Odd ones out: mean distance (1 - cosine) to the {ODD_NEIGHBOURS} nearest others"
    else:
        rows += opened.duplicates(among, cosine=cosine)
        title = f"Duplicates: the same pixels, or a cosine of centred features from {cosine:g} on"
    _print(rows, title)
    if to is not None:
        _write(rows, Path(to), title, opened, picture, among, numbers)
        print(f"{len(rows):,} rows written to {to}")
    return rows


def _box(crop: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = map(int, crop.split(","))
    except ValueError:
        raise UsageError(f"crop {crop!r}: give x,y,width,height in pixels") from None
    return x, y, width, height


def _print(rows: Sequence[Row], title: str) -> None:
    """Print the first rows as a table; a column that says the same in all is left out."""
    if not rows:
        print(f"{title}: none")
        return
    fields = [
        number
        for number, name in enumerate(rows[0]._fields)
        if name != "query" or len({row[0] for row in rows}) > 1
    ]
    columns = (Column(rows[0]._fields[number], overflow="fold") for number in fields)
    table = Table(*columns, title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows[:SHOWN]:
        table.add_row(*(_cell(row[number]) for number in fields))
    Console().print(table)
    if len(rows) > SHOWN:
        print(f"and {len(rows) - SHOWN} more")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return escape(printable(text))  # a file name may hold what moves the cursor of a terminal


def _write(
    rows: Sequence[Row],
    path: Path,
    title: str,
    run: TrainedRun,
    picture: Data | None,
    among: Data | None,
    crop: tuple[int, int, int, int] | None,
) -> None:
    if path.suffix == ".csv":
        fields = Duplicate._fields if not rows else rows[0]._fields
        with (
            replacing(path) as unfinished,
            unfinished.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([fields, *rows])
        return
    album = Album(run.open(among))
    queries = None
    if picture is not None:
        asked = run.open(picture)
        queries = Album(asked if crop is None else cropped(asked, crop))
    shelves = _shelves(rows, album, queries)
    lead = "" if len(shelves) <= MOST_SHELVES else f"The first {MOST_SHELVES} of {len(shelves):,}."
    write_gallery(path, title, lead, shelves[:MOST_SHELVES])


def _shelves(rows: Sequence[Row], album: Album, queries: Album | None) -> list[Shelf]:
    """Return the rows of the page: one of each query or group, one of all odd ones."""
    tiles: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        match row:
            case Match():
                tiles.setdefault(row.query, []).append((row.path, f"{row.cosine:.3f}"))
            case Odd():
                tiles.setdefault("", []).append((row.path, f"{row.distance:.3f}"))
            case Duplicate():
                note = "copy" if row.same_pixels else f"{row.cosine:.3f}"
                tiles.setdefault(f"Group {row.group}", []).append((row.path, note))
    return [
        Shelf(
            heading=heading,
            query=None if queries is None else queries.tile(heading),
            tiles=tuple((album.tile(path), note) for path, note in members),
        )
        for heading, members in list(tiles.items())[: MOST_SHELVES + 1]
    ]
