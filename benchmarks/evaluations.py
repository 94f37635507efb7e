"""Seconds that nearest neighbours and logistic regression take on features of 50,000 pictures.

    python benchmarks/evaluations.py [--threads 2] [--fit 50000] [--score 10000] [--features 512]

The features are drawn: ten classes whose means lie close enough together that neither is easy.
"""

import argparse
import time
from collections.abc import Callable

import torch

from swav.evals import (
    Features,
    KNNConfig,
    LinearConfig,
    Result,
    RetrievalConfig,
    knn,
    linear,
    retrieval,
)

NUM_CLASSES = 10


def drawn(number: int, num_features: int, *, seed: int) -> Features:
    """Return rectified Gaussian features, as a network's are never negative."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(NUM_CLASSES, num_features, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(0, NUM_CLASSES, (number,), generator=generator)
    noise = torch.randn(number, num_features, generator=generator)
    values = torch.relu(0.15 * means[labels] + noise)
    return Features(values=values, labels=labels, names=[str(row) for row in range(number)])


def timed(name: str, run: Callable[[], Result]) -> None:
    started, used = time.perf_counter(), time.process_time()
    result = run()
    seconds, cores = time.perf_counter() - started, time.process_time() - used
    scores = ", ".join(f"{metric} {value:.4f}" for metric, value in result.metrics.items())
    print(f"{name:<10} {seconds:6.1f} s, processor {cores:6.1f} s   {scores}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fit", type=int, default=50_000)
    parser.add_argument("--score", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    fit = drawn(given.fit, given.features, seed=0)
    score = drawn(given.score, given.features, seed=1)
    print(f"fit {given.fit:,} x {given.features}, score {given.score:,}, {given.threads} threads")
    timed("knn", lambda: knn.run(KNNConfig(), fit, score))
    timed("linear", lambda: linear.run(LinearConfig(), fit, score))
    timed("retrieval", lambda: retrieval.run(RetrievalConfig(), fit, score))


if __name__ == "__main__":
    main()
