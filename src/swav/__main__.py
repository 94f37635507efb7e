"""``python -m swav``, and ``torchrun -m swav``: the same as the command ``swav``."""

import sys

from swav.cli import main

sys.exit(main())
