"""Does pre-training on the blood-cell pictures help to detect the cells? Two seeds, beside random.

A small backbone learns from the pictures of the training list without labels (`swav train`), then
starts a Faster R-CNN on their boxes; the untrained backbone of the same seed goes through the same
schedule. Scored on the test list of the set (VOC layout, its own split).

    python benchmarks/detection.py BCCD [--out FOLDER] [--minutes 20] [--steps 600] [--frozen]

The pictures look alike, and much of what tells one from another is how bright it is: with the usual
jitter of the colours the training stays where it predicts all prototypes alike, so there is none.

BCCD has Annotations, ImageSets/Main and JPEGImages. Stop it whenever you like: what is finished in
FOLDER is kept, a training goes on from its last checkpoint. A detector that has taken more than
the minutes is refused, so that no number comes from a longer schedule than said.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev

from swav.data.sources.annotated import Annotated, open_annotated
from swav.evals import DetectionConfig, detection
from swav.training.trained_run import load

SEEDS = (0, 1)
STARTS = ("swav", "random")
NO_JITTER = [
    *("--views.augment.jitter", "0", "--views.augment.grey", "0"),
]


def pretrain(data: Path, listed: Path, seed: int, out: Path, epochs: int) -> Path:
    """Train on the pictures of the training list, or go on; return the run folder."""
    folder = out / f"swav-{seed}"
    command = [sys.executable, "-m", "swav", "train", str(listed), "--out", str(folder)]
    command += ["--recipe", "auto", "--backbone", "resnet18", "--crops", "2x64,4x32"]
    command += ["--epochs", str(epochs), "--seed", str(seed), "--resume"]
    command += ["--backbone.args.channels", "[32,64,128,256]", "--no-evaluate-at-end", *NO_JITTER]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(
            f"pre-training on {data} stopped ({done.returncode}): start again to go on"
        )
    return folder


def settings(steps: int, seed: int, *, frozen: bool) -> DetectionConfig:
    """Return the schedule that both starts share."""
    return DetectionConfig(
        frozen=frozen,
        steps=steps,
        batch_size=4,
        learning_rate=0.02,
        warmup_steps=min(100, steps),
        sizes=(240,),
        max_size=320,
        pyramid_dim=64,
        head_dim=256,
        boxes_per_picture=128,
        seed=seed,
    )


def detect(
    run: Path, start: str, config: DetectionConfig, sets: tuple[Annotated, Annotated], out: Path
) -> dict[str, object]:
    """Train and score one detector, or read what it scored before."""
    name = f"{start}-{config.seed}"
    verdict = out / f"detect-{name}.json"
    if not verdict.exists():
        opened = load(run)
        network = opened.backbone if start == "swav" else opened.untrained()
        begun = time.monotonic()
        folder = out / "checkpoints-of-detectors" / name
        folder.mkdir(parents=True, exist_ok=True)
        result = detection.run(config, network, opened.transform, *sets, folder=folder)
        minutes = (time.monotonic() - begun) / 60
        found = {"start": start, "seed": config.seed, "minutes": minutes, **result.metrics}
        text = json.dumps({**found, "settings": asdict(config), "counts": dict(result.counts)})
        unfinished = verdict.with_suffix(".tmp")
        unfinished.write_text(text)
        unfinished.replace(verdict)
    read: dict[str, object] = json.loads(verdict.read_text())
    if {**asdict(config), "sizes": list(config.sizes), "drops": list(config.drops)} != read[
        "settings"
    ]:
        raise SystemExit(f"{verdict} was made with other settings: take another --out")
    return read


def rows(given: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield the scores of every start and seed."""
    fit, score = open_annotated(str(given.data))
    listed = given.out / "train.txt"
    listed.write_text("".join(f"{(given.data / name).resolve()}\n" for name in fit.pictures.names))
    sets = fit.of(fit.pictures.load()), score.of(score.pictures.load())
    for seed in given.seeds:
        run = pretrain(given.data, listed, seed, given.out, given.epochs)
        config = settings(given.steps, seed, frozen=given.frozen)
        for start in STARTS:
            found = detect(run, start, config, sets, given.out)
            if float(str(found["minutes"])) > given.minutes:
                raise SystemExit(f"{start} {seed} took longer than {given.minutes} min: --steps")
            yield found


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/detection"))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=600, help="of each detector")
    parser.add_argument("--epochs", type=int, default=100, help="of the pre-training")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--frozen", action="store_true", help="train what is on top alone")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print("| start | seed | minutes | AP50 | AP75 | mAP |\n|---|---|---|---|---|---|")
    found = []
    for each in rows(given):
        found.append(each)
        print(
            "| {start} | {seed} | {minutes:.1f} | {ap50:.3f} | {ap75:.3f} | {map:.3f} |".format_map(
                each
            ),
            flush=True,
        )
    for start in STARTS:
        values = [float(str(each["ap50"])) for each in found if each["start"] == start]
        spread = f" +- {stdev(values):.3f}" if len(values) > 1 else ""
        print(f"\n{start}: AP50 {mean(values):.3f}{spread} (n={len(values)})")


if __name__ == "__main__":
    main()
