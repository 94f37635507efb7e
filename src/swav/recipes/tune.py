"""What of a network that starts from weights is trained: ``--tune``."""

import re
from dataclasses import dataclass
from typing import Literal

from swav.config import UnknownNameError

VALID = ("all", "last:N (of N stages, 1 or more)", "head")


@dataclass(frozen=True)
class Tune:
    """The value of ``--tune``, read."""

    part: Literal["all", "last", "head"]
    num_stages: int = 0
    """Of ``last``."""

    @classmethod
    def parse(cls, text: str) -> "Tune":
        """Return what ``text`` means.

        Raises:
            ValueError: naming the valid values.
        """
        if text == "all":
            return cls("all")
        if text == "head":
            return cls("head")
        last = re.fullmatch(r"last:([1-9][0-9]{0,5})", text)
        if last is None:
            raise UnknownNameError("--tune", text, VALID)
        return cls("last", int(last[1]))

    @property
    def title(self) -> str:
        """What is trained of the network, in words."""
        if self.part != "last":
            return "all of the network" if self.part == "all" else "nothing of the network"
        stages = "stage" if self.num_stages == 1 else f"{self.num_stages} stages"
        return f"the last {stages} of the network"

    def __str__(self) -> str:
        return f"last:{self.num_stages}" if self.part == "last" else self.part
