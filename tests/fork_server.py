"""Answers one line of JSON with another: runs `swav`, or a function, in a forked process.

It is a process of its own so that what it forks has nothing in it of pytest, of the checks of
types or of other tests: it is `swav` in every respect but one, the imports are done.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    for name in ("cli", "training.run", "commands.embed", "commands.list_", "recipes.options"):
        importlib.import_module(f"swav.{name}")
    importlib.import_module("matplotlib.pyplot")
    reply("ready")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            reply(os.waitstatus_to_exitcode(status))
        else:
            reply(start(**request))


def reply(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def start(*, call: str, arguments: list[Any], folder: str, log: str) -> int:
    """Fork, and return the number of the new process; its output goes to ``log``.out and .err."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        for descriptor, name in ((0, os.devnull), (1, f"{log}.out"), (2, f"{log}.err")):
            flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o666), descriptor)
        code = run(call, arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(call: str, arguments: list[Any]) -> int:
    """Call ``module:function``; the command line is ``swav.cli:main``."""
    module, _, function = call.partition(":")
    if call == "swav.cli:main":
        sys.argv = ["swav", *arguments]
        arguments = [arguments]
    result = vars(importlib.import_module(module))[function](*arguments)
    return int(result or 0)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))
    main()
