"""The templates of pages: what they all know, and how they become bytes."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from swav.run_folder.readers import Absent


def own_text(name: str) -> str:
    """Return a file of this package."""
    return files("swav.report").joinpath(name).read_text(encoding="utf-8")


def rendered(template: str, **content: Any) -> bytes:
    """Return the page of a template; what is not ours in ``content`` is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["absent"] = lambda value: isinstance(value, Absent)
    style = Markup(own_text("page.css"))
    page = environment.from_string(own_text(template)).render(style=style, **content)
    # file names may hold what UTF-8 cannot encode
    return page.encode("utf-8", "backslashreplace")
