"""Does a run with the `auto` recipe ever end collapsed? Four sets, three seeds, three minutes each.

Collapsed means: the loss within 1 % of ln K, or fewer than a tenth of the prototypes used, in the
last line of metrics.jsonl. A run longer than the cap is stopped by SIGTERM and judged as it is.

    python benchmarks/collapse.py CIFAR_FOLDER [--out FOLDER] [--seconds 180] [--jobs 2]

CIFAR_FOLDER has train/CLASS/*.jpg. Finished runs in FOLDER are kept, so it can be continued.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SEEDS = (0, 1, 2)


def shapes(path: Path, number: int = 3000, side: int = 48) -> None:
    """Write coloured discs, squares, triangles and crosses at random places and sizes."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    pictures = np.empty((number, 3, side, side), dtype=np.uint8)
    labels = generator.integers(0, 4, number)
    for picture, label in zip(pictures, labels, strict=True):
        background, colour = generator.integers(0, 256, (2, 3, 1, 1))
        radius = generator.uniform(6, 16)
        down, across = (axis - generator.uniform(16, 32) for axis in (rows, columns))
        inside = {
            0: down**2 + across**2 < radius**2,
            1: np.maximum(abs(down), abs(across)) < 0.85 * radius,
            2: (down > -radius) & (down < radius) & (2 * abs(across) < radius - down),
            3: (np.minimum(abs(down), abs(across)) < radius / 4)
            & (np.maximum(abs(down), abs(across)) < radius),
        }[int(label)]
        picture[:] = np.where(inside, colour, background)
    np.savez_compressed(path, pictures=pictures, labels=labels)


def subset(folder: Path, path: Path, number: int = 5000) -> None:
    """Write a list of ``number`` CIFAR-10 training files, drawn by a fixed seed."""
    files = sorted((folder / "train").glob("*/*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(files))[:number]
    path.write_text("".join(f"{files[place]}\n" for place in np.sort(chosen)))


def run(name: str, data: str, seed: int, out: Path, seconds: float) -> dict[str, object]:
    """Train one run, at most ``seconds``, and judge its last line."""
    folder = out / f"{name}-{seed}"
    verdict = folder / "verdict.json"
    if not verdict.exists():
        command = [sys.executable, "-m", "swav", "train", data, "--out", str(folder)]
        command += ["--seed", str(seed), "--resume", "--threads", "1", "--workers", "0"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            _, errors = process.communicate()
        if process.returncode not in (0, 75, -signal.SIGTERM):  # the last: trained, evaluating
            raise RuntimeError(f"{name} seed {seed}: {errors.decode()[-2000:]}")
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        collapsed = last["loss"] > 0.99 * last["ln_k"] or last["prototypes_used"] < 0.1
        kept = ("step", "epoch", "seconds", "loss", "ln_k", "code_entropy", "prototypes_used")
        result = {key: last[key] for key in kept}
        verdict.write_text(
            json.dumps({"set": name, "seed": seed, **result, "collapsed": collapsed})
        )
    found: dict[str, object] = json.loads(verdict.read_text())
    return found


def jobs(cifar: Path, out: Path) -> Iterator[tuple[str, str, int]]:
    """Yield name, data and seed of every run."""
    shapes(out / "shapes.npz")
    subset(cifar, out / "cifar5000.txt")
    sets = {
        "emoji": "emoji",
        "digits": "digits",
        "shapes": str(out / "shapes.npz"),
        "cifar5000": str(out / "cifar5000.txt"),
    }
    for seed in SEEDS:
        for name, data in sets.items():
            yield name, data, seed


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/collapse"))
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        waiting = [
            pool.submit(run, name, data, seed, given.out, given.seconds)
            for name, data, seed in jobs(given.cifar, given.out)
        ]
        found = [each.result() for each in waiting]
    print("| set | seed | steps | seconds | loss | ln K | code entropy | prototypes used |")
    print("|---|---|---|---|---|---|---|---|")
    for each in found:
        print(
            "| {set} | {seed} | {step} | {seconds:.0f} | {loss:.3f} | {ln_k:.3f} | "
            "{code_entropy:.2f} | {prototypes_used:.0%} |".format_map(each)
        )
    collapsed = [f"{each['set']} {each['seed']}" for each in found if each["collapsed"]]
    print(f"\ncollapsed: {', '.join(collapsed) or 'none'} of {len(found)}")


if __name__ == "__main__":
    main()
