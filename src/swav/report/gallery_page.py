"""A page of thumbnails in rows, for what a search has found; one file that fetches nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

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
    folder = files("swav.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("gallery.html.j2").read_text("utf-8"))
    page = template.render(
        style=Markup(folder.joinpath("page.css").read_text("utf-8")),
        title=printable(title),
        lead=lead,
        shelves=[(printable(shelf.heading), shelf.query, shelf.tiles) for shelf in shelves],
    )
    # file names may hold what UTF-8 cannot encode
    write_atomically(path, page.encode("utf-8", "backslashreplace"))
