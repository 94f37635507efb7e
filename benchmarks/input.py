"""Is the compiled pipeline right, and does its memory stay flat? Speed is `swav bench input`.

python benchmarks/input.py pixels PHOTOS       against Pillow: 200 photos x 8 crops
python benchmarks/input.py memory PHOTOS       of a loading process over 20,000 pictures
python benchmarks/input.py learning CIFAR      kNN after training on either pipeline, 3 seeds
"""

import argparse
import multiprocessing
import resource
import tempfile
from dataclasses import replace

import numpy as np

import swav
from swav.data.loader import StepViews
from swav.data.sources.decode import Decoded
from swav.data.sources.open import SourceConfig, from_arrays
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.data.views.multicrop import PictureBatch, make_byte_views
from swav.evals import KNNConfig, extract, knn
from swav.recipes import make_config
from swav.training.trained_run import load

PHOTOS, PICTURES, BATCH = 200, 20_000, 50
SEEDS = (0, 1, 2)


def published(blur: float = 0.5, hue: float = 0.2) -> ViewsConfig:
    """Return 2x224 + 6x96 with the full jitter of SwAV."""
    augment = AugmentConfig(blur=blur, hue=hue)
    return ViewsConfig(
        groups=(
            CropGroup(count=2, size=(224, 224), scale=(0.14, 1.0), augment=augment),
            CropGroup(count=6, size=(96, 96), scale=(0.05, 0.14), augment=augment),
        )
    )


def pixels(data: str) -> None:
    """Print the mean absolute difference between views of the two pipelines, of 255."""
    pictures = SourceConfig(data=data).build()
    rows = np.linspace(0, len(pictures) - 1, min(PHOTOS, len(pictures))).astype(np.int64)
    for blur, hue in ((0.0, 0.2), (0.0, 0.0), (1.0, 0.2)):
        found: list[float] = []
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            whole = [pictures[int(row)] for row in chosen]
            shown = PictureBatch([Decoded(each, (each.shape[1], each.shape[2])) for each in whole])
            ours, theirs = (
                make_byte_views(
                    shown, chosen, published(blur, hue), seed=0, epoch=0, pipeline=name
                ).views
                for name in ("fused", "pillow")
            )
            for one, other in zip(ours, theirs, strict=True):
                found += (one.float() - other.float()).abs().flatten(1).mean(dim=1).tolist()
        print(
            f"blur {blur:g}, hue {hue:g}: {len(found)} crops, mean {np.mean(found):.2f}, "
            f"95 % below {np.quantile(found, 0.95):.2f}, most {max(found):.2f} of 255",
            flush=True,
        )


def memory(data: str) -> None:
    """Print the peak memory of a process that makes batch after batch."""
    process = multiprocessing.get_context("fork").Process(target=_make_batches, args=(data,))
    process.start()
    process.join()


def _make_batches(data: str) -> None:
    pictures = SourceConfig(data=data, max_memory_gib=0).build()
    views = StepViews(pictures, published(), global_batch=BATCH)
    for number in range(PICTURES // BATCH):
        views[number]
        if number % (PICTURES // BATCH // 10) == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{(number + 1) * BATCH:6d} pictures: peak {peak:.0f} MiB", flush=True)


def learning(data: str) -> None:
    """Print the kNN accuracy after the same short training on either pipeline."""
    pictures = SourceConfig(data=data, split="train").build().load()
    chosen = pictures.subset(np.random.default_rng(0).permutation(len(pictures))[:5000])
    assert chosen.pixels is not None
    images = chosen.pixels.permute(0, 2, 3, 1).numpy()
    labelled = from_arrays(images, chosen.labels)
    for seed in SEEDS:
        for pipeline in ("fused", "pillow"):
            config = make_config("cifar10-cpu")
            config = replace(
                config,
                data=SourceConfig(data="arrays"),
                views=replace(config.views.with_crops("2x32,4x20"), pipeline=pipeline),
                epochs=3,
                threads=1,
                seed=seed,
            )
            with tempfile.TemporaryDirectory() as folder:
                unlabelled = from_arrays(images)  # nothing is evaluated at the end of the run
                out = swav.train(unlabelled, config=config, out=f"{folder}/run")
                run = load(out)
                found = [
                    knn.run(KNNConfig(k=(20,)), extract(network, labelled, run.transform))
                    for network in (run.backbone, run.untrained())
                ]
            trained, untrained = (result.metrics["top1_k20"] for result in found)
            print(
                f"{pipeline:6s} seed {seed}: {trained:.4f}, untrained {untrained:.4f}", flush=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pixels", "memory", "learning"))
    parser.add_argument("data")
    given = parser.parse_args()
    {"pixels": pixels, "memory": memory, "learning": learning}[given.what](given.data)
