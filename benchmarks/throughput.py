"""Pictures a second of SwAV training on CIFAR-10: `swav` against lightly's example, interleaved.

Both train the same backbone on the same crops (2x32 + 4x20), batch 256, on all cores, loader
included. lightly is used as its SwAV example does: one forward for each view, its transform on
Pillow pictures in loader workers, its loss, Adam at 1e-3. Each turn runs a fresh process.

    python benchmarks/throughput.py CIFAR_FOLDER --peer-python OTHER_ENV/bin/python [--turns 3]

CIFAR_FOLDER has train/CLASS/*.jpg; OTHER_ENV has `pip install lightly torch torchvision timm`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BACKBONE: dict[str, Any] = {
    "channels": (16, 32, 64, 128),
    "stem_type": "deep",
    "stem_width": 8,
    "zero_init_last": False,
}
BATCH, NUM_PROTOTYPES, HIDDEN_DIM, EMBED_DIM = 256, 200, 512, 128
WARMUP_STEPS, STEPS = 4, 12


def ours(folder: Path) -> float:
    """Return the pictures a second of ``swav``."""
    from swav.data.loader import StepViews, loader
    from swav.data.sources.open import SourceConfig
    from swav.data.views.crops import CropGroup, ViewsConfig
    from swav.engine import Clock, TrainingFacts, fit
    from swav.engine.launch import available_cores, launch, prepare_network
    from swav.engine.optim import OptimConfig
    from swav.methods import SwAVConfig
    from swav.nn.backbones import BackboneConfig
    from swav.nn.heads import HeadConfig

    pictures = SourceConfig(data=str(folder), split="train").build().load()
    views = ViewsConfig(
        groups=(
            CropGroup(count=2, size=(32, 32), scale=(0.14, 1.0)),
            CropGroup(count=4, size=(20, 20), scale=(0.05, 0.14)),
        )
    )
    fabric = launch(device="cpu", threads=available_cores())  # as ``swav train`` does
    backbone = BackboneConfig(name="resnet18", args=BACKBONE).build()
    method = SwAVConfig(
        num_prototypes=(NUM_PROTOTYPES,),
        head=HeadConfig(hidden_dim=HIDDEN_DIM, embed_dim=EMBED_DIM),
        freeze_steps=0,
    )
    objective = method.build(
        backbone, TrainingFacts(feature_dim=128, num_images=len(pictures), global_batch=BATCH)
    )
    prepare_network(objective, fabric, sync_batchnorm=False, compile_network=False)
    optim = OptimConfig(optimizer="adamw", batch_size=BATCH, learning_rate=1e-3)
    total_steps = WARMUP_STEPS + STEPS
    clock = Clock(step=0, epoch=0, steps_per_epoch=195, total_steps=total_steps, images=0)
    batches = loader(
        StepViews(pictures, views, global_batch=BATCH),
        start_step=0,
        total_steps=total_steps,
        workers=1,
    )
    started = 0.0
    for now, _ in fit(objective, batches, optim.build(objective), clock, fabric=fabric):
        if now.step == WARMUP_STEPS:
            started = time.monotonic()
    return STEPS * BATCH / (time.monotonic() - started)


def peer(folder: Path) -> float:
    """Return the pictures a second of lightly's SwAV example with this backbone and crops."""
    import timm
    import torch
    import torchvision
    from lightly.loss import SwaVLoss
    from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
    from lightly.transforms.swav_transform import SwaVTransform

    transform = SwaVTransform(
        crop_sizes=(32, 20),
        crop_counts=(2, 4),
        crop_min_scales=(0.14, 0.05),
        crop_max_scales=(1.0, 0.14),
    )
    dataset = torchvision.datasets.ImageFolder(str(folder / "train"), transform=transform)
    batches = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=2
    )
    backbone = timm.create_model("resnet18", num_classes=0, **BACKBONE)
    head = SwaVProjectionHead(128, HIDDEN_DIM, EMBED_DIM)
    prototypes = SwaVPrototypes(EMBED_DIM, n_prototypes=NUM_PROTOTYPES)
    criterion = SwaVLoss()
    weights = [*backbone.parameters(), *head.parameters(), *prototypes.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    started = 0.0
    for step, (views, *_) in enumerate(batches):
        if step == WARMUP_STEPS:
            started = time.monotonic()
        if step == WARMUP_STEPS + STEPS:
            break
        prototypes.normalize()
        embeddings = [
            torch.nn.functional.normalize(head(backbone(view).flatten(start_dim=1)), dim=1)
            for view in views
        ]
        scores = [prototypes(embedding) for embedding in embeddings]
        loss = criterion(scores[:2], scores[2:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return STEPS * BATCH / (time.monotonic() - started)


def main() -> None:
    """Run the turns and print the medians and the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--one", choices=("ours", "peer"))
    given = parser.parse_args()
    if given.one:
        print({"ours": ours, "peer": peer}[given.one](given.folder))
        return
    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(given.turns):
        for name, python in (("ours", sys.executable), ("peer", given.peer_python)):
            command = [python, __file__, str(given.folder), "--one", name]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            speeds[name].append(round(float(answer.stdout.split()[-1]), 1))
            print(name, speeds[name][-1], file=sys.stderr)
    ratios = [ours / peer for ours, peer in zip(speeds["ours"], speeds["peer"], strict=True)]
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(json.dumps({**speeds, "medians": medians, "ratios": [round(r, 2) for r in ratios]}))


if __name__ == "__main__":
    main()
