"""The compiled kernel: the same bytes whether it was compiled just now or read from its cache."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import hashlib
import numpy as np
import torch
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views

torch.manual_seed(0)
pictures, rows = torch.randint(0, 256, (24, 3, 24, 24), dtype=torch.uint8), np.arange(24)
sizes = ((20, 20), (16, 16), (33, 17))
groups = tuple(CropGroup(count=1, size=s, scale=(0.1, 1.0), augment=AugmentConfig()) for s in sizes)
batch, config = PictureBatch(pictures, rows), ViewsConfig(groups=groups)
views = make_byte_views(batch, rows, config, seed=0, epoch=0).views
print([hashlib.sha256(view.numpy().tobytes()).hexdigest() for view in views])
"""


def test_the_first_run_on_a_machine_sees_the_views_of_all_later_ones(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, cached = (
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbc"))
    assert compiled == cached
