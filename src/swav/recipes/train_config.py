"""Everything that defines a training run, as one value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Suppress

from swav.config import check_ranges, from_dict
from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import SourceConfig
from swav.data.views.crops import ViewsConfig
from swav.engine import Clock
from swav.engine.optim import OptimConfig
from swav.methods import MethodConfig
from swav.nn.backbones import BackboneConfig
from swav.recipes.tune import Tune
from swav.run_folder.config_file import read_config


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete training run; ``config.yaml`` of its folder is this, written down."""

    data: SourceConfig = field(default_factory=SourceConfig)
    views: ViewsConfig
    backbone: BackboneConfig
    # an option of its own, which auto has to know first
    init: Annotated[str, Suppress] = "random"
    """Where the backbone's weights start: random, timm, lite0, a run folder or a weights file."""
    # auto has to know this too
    tune: Annotated[str, Suppress] = "all"
    """What is trained further of weights that --init gives: all, last:N (the last N stages of the
    network) or head."""
    # what the start's weights were published with
    input: Annotated[EvalTransform | None, Suppress] = None
    """What the trained network is shown when it is used; by default pictures of the target size."""
    method: MethodConfig
    optim: OptimConfig
    epochs: int
    """Passes over the data."""
    seed: int = 0
    """Of weights, views and their order, and of what a method draws."""
    device: str = "auto"
    """auto, cpu, cuda, mps, or one device such as cuda:1."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    # torch has no SyncBatchNorm on a CPU
    sync_batchnorm: bool = False
    """BatchNorm statistics over all ranks (GPU only)."""
    # on two cores minutes of compilation and no gain (docs/decisions/0005)
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the backbone; auto compiles on CUDA only."""
    threads: int = 0
    """CPU threads of the network; 0 takes the cores of this rank (what Pillow leaves of them)."""
    workers: int = -1
    """Processes that make views, for each rank; 0 works in place, -1 takes a quarter of the cores
    beside a CPU, all but one beside a GPU, and at least one."""
    log_every: int = 10
    """Steps."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves twenty times in a run, at most once an epoch."""
    evaluate_every: int = 0
    """Epochs between evaluations while training goes on: rank, alignment and uniformity of the
    features, nearest neighbours where there are labels; 0 evaluates only at the end."""
    evaluate_at_end: bool = True
    """Score the finished run beside its baselines; without, `swav evaluate RUN` does it later."""
    keep: Literal["better", "trained"] = "better"
    """What the run hands out if --init gives weights: the better one of the trained network and its
    start, told without labels (the start then gets clusters), or the trained one in any case."""
    tensorboard: bool = False
    """Also write TensorBoard files (needs the extra `tensorboard`)."""

    def __post_init__(self) -> None:
        if self.tuning.part != "all" and self.init == "random":
            raise ValueError(
                f"--tune {self.tune} keeps weights as they are, and random ones are not worth it: "
                "say by --init what to start from, or leave out --tune"
            )
        if self.views.num_views < self.method.min_views:
            raise ValueError(
                f"views {self.views.description}: {self.method.name} compares at least "
                f"{self.method.min_views} views of a picture, such as --views.groups.0.count 2"
            )
        if self.epochs < 1:
            raise ValueError(
                f"epochs {self.epochs} is not among the whole numbers in [1, 1e9]: give --epochs 1 "
                "or more"
            )
        check_ranges(
            self,
            epochs="[1, 1e9]",
            seed="[0, 9e18]",
            threads="[0, 1024]",
            workers="[-1, 1024]",
            log_every="[0, inf)",
            save_every="[0, inf)",
            evaluate_every="[0, inf)",
        )

    @property
    def tuning(self) -> Tune:
        """What ``tune`` says."""
        return Tune.parse(self.tune)

    def first_clock(self, steps_per_epoch: int) -> Clock:
        """Return the position before the first step."""
        return Clock(
            step=0,
            epoch=0,
            steps_per_epoch=steps_per_epoch,
            total_steps=steps_per_epoch * self.epochs,
            images=0,
            warmup_steps=round(self.optim.warmup_epochs * steps_per_epoch),
        )


def read_train_config(path: Path) -> TrainConfig:
    """Return the training of a config file, whatever version of this package wrote it.

    Raises:
        ValueError: naming the file, and the key or the line.
    """
    values = read_config(path)
    try:
        return from_dict(TrainConfig, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
