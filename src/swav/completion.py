"""Completion of verbs and options by the Tab key, for the shells that tyro knows."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tyro.extras import subcommand_cli_from_dict

from swav.config import UnknownNameError

COMPLETIONS = {
    "bash": (".local/share/bash-completion/completions/swav", "open a new shell"),
    "zsh": (".zfunc/_swav", "put fpath+=~/.zfunc before compinit in ~/.zshrc"),
    "fish": (".config/fish/completions/swav.fish", "open a new shell"),
}
"""Where each shell looks for its completions, in the home folder, and what is left to do."""


def write_completion(
    shell: str, verbs: Mapping[str, Callable[..., Any]], markers: Sequence[Any]
) -> None:
    """Write the completion of a shell into the home folder.

    Args:
        shell: its name.
        verbs: what has the options of each verb.
        markers: how tyro reads them.

    Raises:
        ValueError: if the shell is not known.
    """
    if shell not in COMPLETIONS:
        raise UnknownNameError("shell", shell, COMPLETIONS)
    path, rest = Path.home() / COMPLETIONS[shell][0], COMPLETIONS[shell][1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(SystemExit):
        words = ["--tyro-write-completion", shell, str(path)]
        # one parser of all verbs, which nothing else needs: it imports what every verb does
        subcommand_cli_from_dict(dict(verbs), prog="swav", args=words, config=markers)
    print(f"wrote {path}; to use it, {rest}")
