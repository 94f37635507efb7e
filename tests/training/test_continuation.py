"""What a run may be continued on: its own settings and its own pictures."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from forked import on_ranks
from tiny import drawn, tiny_config, write_pictures

from swav.run_folder import layout
from swav.training import trained_run
from swav.training.run import train


def test_other_pictures_of_the_same_number_are_refused(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    config = tiny_config(data, epochs=1, evaluate_at_end=False)
    run = train(data, config=config, out=tmp_path / "run").folder
    assert json.loads((run / layout.RECORD).read_text())["fingerprint"]

    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "same.npz"
    (tmp_path / "drawn.npz").rename(moved)
    assert train(str(moved), config=config, out=run, resume=True).folder == run

    pictures, labels = drawn(seed=1)
    np.savez(tmp_path / "drawn.npz", pictures=pictures, labels=labels)
    with pytest.raises(ValueError, match=r"64 pictures of .*drawn\.npz are not those .* contents"):
        train(data, config=config, out=run, resume=True)


def test_checkpoints_that_are_gone_are_missed(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    config = tiny_config(data, epochs=1, evaluate_at_end=False)
    run = train(data, config=config, out=tmp_path / "run")
    shutil.rmtree(run / layout.CHECKPOINTS)
    with pytest.raises(ValueError, match=r"step 4 was saved.*bring it back.*--init .*model"):
        train(data, config=config, out=run, resume=True)
    with pytest.raises(ValueError, match=r"lost what it saved, the last at step 4"):
        trained_run.load(run)


def refused_on_a_rank(rank: int, ranks: int, data: str, out: str) -> None:
    """Try to start a run where there is one, as one of several ranks; every rank is told."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks))
    os.environ.update(WORLD_SIZE=str(ranks), GROUP_RANK="0", TORCHELASTIC_RUN_ID="tests")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500", GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=ranks)
    said = "already holds a run" if rank == 0 else "another rank cannot go on"
    with pytest.raises(ValueError, match=said):
        train(data, config=tiny_config(data), out=out)


@pytest.mark.ranks
def test_what_one_rank_refuses_is_an_answer_on_all(tmp_path: Path) -> None:
    data = write_pictures(tmp_path)
    run = train(data, config=tiny_config(data, epochs=1, evaluate_at_end=False), out=tmp_path / "r")
    name = "training.test_continuation:refused_on_a_rank"
    on_ranks(name, data, str(run), ranks=2, folder=tmp_path)


@pytest.mark.parametrize(("value", "said"), [(0, "every value is 0"), (None, "copies of one")])
def test_pictures_that_are_all_the_same_are_refused(
    tmp_path: Path, value: int | None, said: str
) -> None:
    pictures = np.repeat(drawn()[0][:1], 64, axis=0)
    if value is not None:
        pictures[:] = value
    np.savez(tmp_path / "same.npz", pictures=pictures)
    data = str(tmp_path / "same.npz")
    with pytest.raises(ValueError, match=rf"all 64 pictures .* are the same \(.*{said}"):
        train(data, config=tiny_config(data), out=tmp_path / "run", dry_run=True)
