"""``swav export``: the trained network where other libraries open it."""

from collections.abc import Sequence
from json import dumps
from os import PathLike
from pathlib import Path

from swav.training.export import Exported, export_run, known_formats
from swav.training.trained_run import load


def export(
    run: str | PathLike[str],
    data: str | None = None,
    /,
    *,
    to: str,
    out: str | Path | None = None,
    json: bool = False,
    allow_factory: Sequence[str] = (),
) -> list[Exported]:
    """Write the trained network in formats of other libraries, with its clusters and a README.md.

    Each is opened again by its own library and compared with the trained network, on at most 50
    pictures together and on one alone; the largest difference between features is printed. Above
    1e-5 of the largest feature it fails, and nothing is left behind.

    Args:
        run: run folder.
        data: pictures to compare on; by default those of the training.
        to: separated by commas: timm, torchvision, hf (Transformers), onnx, torch-export.
        out: folder for a folder of each format; by default ``export`` in the run folder.
        json: print what was written as JSON.
        allow_factory: ``package.module:function`` that the run may name as its backbone.

    Raises:
        ValueError: if a format is unknown, cannot hold this network, or gives other features.
    """
    formats = known_formats([name.strip() for name in to.split(",") if name.strip()])
    opened = load(run, device="cpu", allow_factory=allow_factory)
    exported = export_run(opened, formats, data=data, out=None if out is None else Path(out))
    if json:
        rows = [{**vars(one), "folder": str(one.folder)} for one in exported]
        print(dumps(rows, indent=2))
    else:
        for one in exported:
            print(
                f"{one.format}: {one.folder}, features differ by at most {one.difference:.1e} "
                f"({one.relative:.1e} of the largest) on {one.pictures} pictures and on one alone"
            )
    return exported
