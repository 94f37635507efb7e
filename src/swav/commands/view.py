"""``swav view``: the report in a browser, where names of clusters and selections can be kept."""

import webbrowser
from contextlib import suppress
from os import PathLike
from pathlib import Path

from swav.recipes.train_config import read_train_config
from swav.report.server import Server
from swav.run_folder import layout


def view(run: str | PathLike[str], /, *, port: int = 0, open_browser: bool = True) -> None:
    """Serve the report of a run to this machine alone, until Ctrl-C.

    Names of clusters go to ``names.csv`` in the run folder, selections of pictures to
    ``selections/NAME.csv``; pictures open at their full size. It works while the run is training.

    Args:
        run: run folder.
        port: of 127.0.0.1; 0 takes a free one.
        open_browser: whether the address opens in a browser; --no-open-browser prints it only.

    Raises:
        ValueError: if the folder holds no run.
    """
    folder = Path(run)
    if not layout.is_run(folder):
        raise ValueError(
            f"{folder} is no run folder (no {layout.CONFIG}): give the --out of a training"
        )
    pictures = read_train_config(folder / layout.CONFIG).data.build()
    with Server(folder, pictures, port=port) as server:
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(server.address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
