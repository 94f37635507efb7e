"""Check every shape and type of the package; lend two ranks to the tests that want them."""

import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from jaxtyping import install_import_hook

install_import_hook("swav", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
torch.set_num_threads(1)
os.environ["SWAV_CACHE"] = ""  # no test reads or leaves what is kept for the user

RANKS = 2
ANSWER_SECONDS = 120
COLLECTIVE_TIMEOUT = timedelta(seconds=60)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the losses of tests/golden anew; the commit has to say why they changed",
    )


class RankPool:
    """Two processes of one gloo group that call what they are sent.

    They are forked from the collected session, so that they know every test module and import
    nothing. A pool that failed once is broken: its ranks may wait for each other.
    """

    def __init__(self, rendezvous: Path) -> None:
        context = multiprocessing.get_context("fork")
        self.broken = False
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(RANKS):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, there, rendezvous), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __call__(
        self, world: int, function: Callable[[Any], Any], shares: Sequence[Any]
    ) -> list[Any]:
        """Return ``function(share)`` of each rank, in rank order."""
        assert world == RANKS == len(shares)
        for pipe, share in zip(self._pipes, shares, strict=True):
            pipe.send_bytes(pickle.dumps((function, share)))
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(answers) < RANKS:
            waiting = [pipe for rank, pipe in enumerate(self._pipes) if rank not in answers]
            ready = wait(waiting, timeout=max(deadline - time.monotonic(), 0))
            if not ready:
                self.close()
                pytest.fail(f"only ranks {sorted(answers)} answered in {ANSWER_SECONDS} seconds")
            for pipe in ready:
                rank = self._pipes.index(pipe)
                answers[rank] = self._receive(rank)
        return [answers[rank] for rank in range(RANKS)]

    def close(self) -> None:
        """End both processes."""
        self.broken = True
        for process in self._processes:
            process.kill()
            process.join()

    def _receive(self, rank: int) -> Any:
        try:
            answer, failure = pickle.loads(self._pipes[rank].recv_bytes())
        except EOFError:
            answer, failure = None, "the process died"
        if failure is not None:
            self.close()
            pytest.fail(f"rank {rank}: {failure}")
        return answer


def _serve(rank: int, pipe: Connection, rendezvous: Path) -> None:
    """Answer until the parent goes, in an environment as torchrun makes it."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update(GROUP_RANK="0", TORCHELASTIC_RUN_ID="tests", GLOO_SOCKET_IFNAME="lo")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")  # asked for, never opened
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=RANKS,
        timeout=COLLECTIVE_TIMEOUT,
    )
    while os.getppid() == parent:
        if not pipe.poll(1):
            continue
        try:
            function, share = pickle.loads(pipe.recv_bytes())
            answer = (function(share), None)
        except EOFError:
            return
        except BaseException:
            answer = (None, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))


@pytest.fixture(scope="session", autouse=True)
def _pools(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], RankPool]]:
    """Start a pool before the first test if any wants one, and another when it broke.

    A process forked later, after a gradient was computed, could compute none.
    """
    pools: list[RankPool] = []

    def pool() -> RankPool:
        if not pools or pools[-1].broken:
            pools.append(RankPool(tmp_path_factory.mktemp("ranks") / "rendezvous"))
        return pools[-1]

    if any(item.get_closest_marker("ranks") for item in request.session.items):
        pool()
    yield pool
    for each in pools:
        each.close()


@pytest.fixture
def run_on_ranks(_pools: Callable[[], RankPool]) -> RankPool:
    """Call ``run_on_ranks(2, function, shares)``: ``function(share)`` on each of two ranks.

    Functions and answers are pickled; for a test marked ``ranks``.
    """
    return _pools()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Undo what a test did to the number of threads."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
