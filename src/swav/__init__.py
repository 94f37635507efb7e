"""Self-supervised learning from unlabelled pictures: SwAV and the methods around it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swav.commands.ablate import ablate
    from swav.commands.cluster import cluster
    from swav.commands.compare import compare
    from swav.commands.embed import embed
    from swav.commands.evaluate import evaluate
    from swav.commands.export import export
    from swav.commands.search import search
    from swav.data.sources.open import from_arrays
    from swav.report import write_report
    from swav.training.imported import import_weights
    from swav.training.run import train
    from swav.training.trained_run import load

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "ablate",
    "cluster",
    "compare",
    "embed",
    "evaluate",
    "export",
    "from_arrays",
    "import_weights",
    "load",
    "search",
    "train",
    "write_report",
]

_HOMES = {
    "ablate": "swav.commands.ablate",
    "cluster": "swav.commands.cluster",
    "compare": "swav.commands.compare",
    "embed": "swav.commands.embed",
    "evaluate": "swav.commands.evaluate",
    "export": "swav.commands.export",
    "from_arrays": "swav.data.sources.open",
    "import_weights": "swav.training.imported",
    "load": "swav.training.trained_run",
    "search": "swav.commands.search",
    "train": "swav.training.run",
    "write_report": "swav.report",
}


def __getattr__(name: str) -> Any:
    """Import an exported function when it is first used, so that ``import swav`` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = vars(import_module(_HOMES[name]))[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
