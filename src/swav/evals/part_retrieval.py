"""Finding a picture again from an unseen part of it.

A random part of a picture, its colours shifted, is looked up among all whole pictures. It needs
no labels, and it asks for what pixels cannot give: knowing a thing by a piece of it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torchvision.transforms.v2 import functional as photometric

from swav.config import check_ranges
from swav.data.eval_transform import Picture
from swav.data.random import Stream, uniforms
from swav.data.sources.pictures import Pictures
from swav.evals.harness.accuracy import share_metrics
from swav.evals.harness.extract import Encoder, Features, encode_all, prepared_batches
from swav.evals.harness.input import AS_THE_MODEL, InputConfig
from swav.evals.harness.subject import Subject
from swav.evals.harness.task import settings_of
from swav.ops.neighbours import nearest
from swav.run_folder.result import Metric, Result

RANKS = (1, 5)
_NUM_DRAWS = 8


@dataclass(frozen=True, kw_only=True)
class PartRetrievalConfig:
    """Recall of whole pictures from a random, colour-jittered part of them."""

    name: ClassVar[str] = "part_retrieval"
    title: ClassVar[str] = "Retrieval from a part"
    finding: ClassVar[str] = (
        "of the pictures are found again, first among all, from an unseen part of them"
    )
    needs_labels: ClassVar[bool] = False
    baselines: ClassVar[tuple[str, ...]] = ("start", "random", "pixels")
    input: ClassVar[InputConfig] = AS_THE_MODEL
    area: tuple[float, float] = (0.1, 0.3)
    """Share of the picture that a part shows."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of a part."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    """The first three scale by 1 +- x, hue turns by +- x of the circle."""
    max_parts: int = 2000
    """Pictures that are looked up, drawn by seed; all are in the gallery."""
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.area
        if not 0 < low <= high <= 1:
            raise ValueError(f"area {self.area} must be two rising shares between 0 and 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must be two rising numbers above 0")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= asdict(self)[name] <= 1:
                raise ValueError(f"{name} {asdict(self)[name]} must be between 0 and 1")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue {self.hue} must be between 0 and 0.5")
        if self.max_parts < 1:
            raise ValueError(f"max_parts {self.max_parts} must be 1 or more")
        check_ranges(self, ratio="[0.01, 100]", seed="[0, 9e18]")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on the pictures that are scored."""
        return run(
            self,
            subject.encode,
            subject.data.scored,
            gallery=subject.scored_features,
            workers=subject.workers,
        )


def run(
    config: PartRetrievalConfig,
    encoder: Encoder,
    pictures: Pictures,
    *,
    gallery: Features | None = None,
    workers: int = 0,
) -> Result:
    """Return the recall at 1 and at 5 of the whole picture, by cosine among all pictures.

    The parts depend on the seed and the positions of the pictures only, so every ``encoder``
    (a network's, the untrained network's, ``pixel_encoder``'s) is asked the same questions.
    ``gallery`` is what it made of the whole pictures already.

    Raises:
        ValueError: if there are fewer than two readable pictures, or none of those looked up.
    """
    if gallery is None:
        gallery = encode_all(encoder, pictures, workers=workers)
    num_gallery = len(gallery.values)
    if num_gallery < 2:
        raise ValueError(f"{pictures.data}: {num_gallery} readable pictures are too few to confuse")
    lookup = _encoded(config, encoder, pictures, gallery.names, workers)
    neighbours = nearest(
        lookup.queries, gallery.values, num_neighbours=min(max(RANKS), num_gallery)
    ).indices
    hits = neighbours == lookup.answers[:, None]
    num_right = {f"recall_at_{rank}": int(hits[:, :rank].any(dim=1).sum()) for rank in RANKS}
    metrics, intervals = share_metrics(num_right, len(hits))
    return Result(
        task=config.name,
        title=config.title,
        protocol=_protocol(config),
        metrics=metrics,
        about={
            f"recall_at_{rank}": Metric(title=f"recall at {rank}", is_share=True) for rank in RANKS
        },
        lead="recall_at_1",
        finding=config.finding,
        intervals=intervals,
        seeds=(config.seed,),
        counts={"gallery": num_gallery, "parts": len(hits)},
    )


def chosen(num_images: int, config: PartRetrievalConfig) -> Int64[np.ndarray, " images"]:
    """Return the positions of the pictures that are looked up, all if there are few enough."""
    if num_images <= config.max_parts:
        return np.arange(num_images)
    generator = np.random.default_rng(config.seed)
    return np.sort(generator.choice(num_images, config.max_parts, replace=False))


def random_parts(
    pictures: Sequence[Picture], indices: Sequence[int], config: PartRetrievalConfig
) -> list[Picture]:
    """Return a random, colour-jittered part of each picture, at its own resolution."""
    # by (seed, position): every encoder is asked the same questions, in any batch
    draws = uniforms(
        seed=config.seed,
        epoch=Stream.PART_RETRIEVAL,
        indices=np.asarray(indices),
        view=0,
        num_draws=_NUM_DRAWS,
    )
    return [
        _jittered(_cropped(picture, draw, config), draw, config)
        for picture, draw in zip(pictures, draws, strict=True)
    ]


class _Lookup(NamedTuple):
    queries: Float[Tensor, "batch features"]
    answers: Int64[Tensor, " batch"]
    """Row of the gallery that each query is a part of."""


def _encoded(
    config: PartRetrievalConfig,
    encoder: Encoder,
    pictures: Pictures,
    gallery: Sequence[str],
    workers: int,
) -> _Lookup:
    """Return the features of the parts that are looked up; the gallery's names are in order."""
    asked = chosen(len(pictures), config)

    def prepare(rows: list[int], batch: list[Picture]) -> Tensor:
        return encoder.prepare(random_parts(batch, asked[rows].tolist(), config))

    queries: list[Tensor] = []
    answers: list[int] = []
    row_of = _rows(pictures.names, gallery)
    for rows, parts in prepared_batches(pictures.subset(asked), prepare, workers=workers):
        queries.append(encoder.encode(parts))
        answers.extend(row_of[index] for index in asked[rows].tolist())
    if not answers:
        raise ValueError(
            f"{pictures.data}: none of the {len(asked)} pictures to look up can be read"
        )
    return _Lookup(torch.cat(queries), torch.tensor(answers))


def _rows(names: Sequence[str], readable: Sequence[str]) -> dict[int, int]:
    """Return the row of each readable picture by its position in the set; both are in order."""
    row_of: dict[int, int] = {}
    for index, name in enumerate(names):
        if len(row_of) < len(readable) and readable[len(row_of)] == name:
            row_of[index] = len(row_of)
    return row_of


def _cropped(
    picture: Picture, draws: Float64[np.ndarray, " draws"], config: PartRetrievalConfig
) -> Picture:
    """Return a part of the drawn area and ratio; a side that would not fit is cut short."""
    _, tall, wide = picture.shape
    area = tall * wide * _between(config.area, draws[0])
    # even in the logarithm, as random resized crops are: 3/4 and 4/3 are equally likely
    ratio = float(np.exp(_between((np.log(config.ratio[0]), np.log(config.ratio[1])), draws[1])))
    height = min(max(round((area / ratio) ** 0.5), 1), tall)
    width = min(max(round((area * ratio) ** 0.5), 1), wide)
    top, left = int(draws[2] * (tall - height + 1)), int(draws[3] * (wide - width + 1))
    return picture[:, top : top + height, left : left + width].contiguous()


def _jittered(
    picture: Picture, draws: Float64[np.ndarray, " draws"], config: PartRetrievalConfig
) -> Picture:
    """Return the picture with brightness, contrast, saturation and hue shifted, in this order.

    Colour means nothing outside red, green and blue: any other channel is a grey picture.
    """
    brightness, contrast, saturation = (
        _between((1 - strength, 1 + strength), draw)
        for strength, draw in zip(
            (config.brightness, config.contrast, config.saturation), draws[4:7], strict=True
        )
    )
    coloured = picture.shape[0] == 3
    # on small pictures Pillow does this three times as fast as tensors
    shifted = photometric.to_pil_image(picture) if coloured else picture[:, None]
    shifted = photometric.adjust_brightness(shifted, brightness)
    shifted = photometric.adjust_contrast(shifted, contrast)
    if coloured:
        shifted = photometric.adjust_saturation(shifted, saturation)
        if config.hue:
            shifted = photometric.adjust_hue(shifted, _between((-config.hue, config.hue), draws[7]))
        shifted = photometric.pil_to_tensor(shifted)
    jittered: Tensor = shifted.view(picture.shape)
    return jittered


def _between(ends: tuple[float, float], draw: float) -> float:
    return float(ends[0] + (ends[1] - ends[0]) * draw)


def _protocol(config: PartRetrievalConfig) -> dict[str, Any]:
    question = "which whole picture is this part of, by cosine"
    return {"question": question, "jitter": "by Pillow"} | settings_of(config)
