"""What a run may be continued on: its own settings and its own pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import drawn, tiny_config, write_pictures

from swav.run_folder import layout
from swav.training.run import train


def test_other_pictures_of_the_same_number_are_refused(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    config = tiny_config(data, epochs=1, evaluate_at_end=False)
    run = train(data, config=config, out=tmp_path / "run")
    assert json.loads((run / layout.RECORD).read_text())["fingerprint"]

    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "same.npz"
    (tmp_path / "drawn.npz").rename(moved)
    assert train(str(moved), config=config, out=run, resume=True) == run

    pictures, labels = drawn(seed=1)
    np.savez(tmp_path / "drawn.npz", pictures=pictures, labels=labels)
    with pytest.raises(ValueError, match=r"64 pictures of .*drawn\.npz are not those .* contents"):
        train(data, config=config, out=run, resume=True)
