"""A page of thumbnails in rows, for what a search has found; one file that fetches nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swav.report.templates import rendered
from swav.report.thumbnails import Tile
from swav.report.wording import printable
from swav.run_folder.atomic import write_atomically


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A row of pictures, each with a note below it."""

    heading: str
    query: Tile | None
    """The picture that they were found for, if there is one."""
    tiles: tuple[tuple[Tile, str], ...]


def write_gallery(path: Path, title: str, lead: str, shelves: Sequence[Shelf]) -> None:
    """Write the page."""
    page = rendered(
        "gallery.html.j2",
        title=printable(title),
        lead=lead,
        shelves=[(printable(shelf.heading), shelf.query, shelf.tiles) for shelf in shelves],
    )
    write_atomically(path, page)
