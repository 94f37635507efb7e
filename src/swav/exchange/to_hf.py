"""A trained network as a folder that Transformers opens, without code of ours or of the hub."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from swav.exchange.clusterer import USAGE, read_clusterer
from swav.exchange.exported import (
    Features,
    Format,
    OpenedModel,
    Picture,
    TrainedModel,
    as_images,
    opening_code,
    require,
)
from swav.exchange.to_timm import rebuilt, write_timm

CONFIG = "config.json"


class HuggingFace(Format):
    """The folder of timm, as ``AutoModel`` and ``AutoImageProcessor`` read it."""

    def check(self, model: TrainedModel) -> None:
        """Accept networks of timm, for pictures that Pillow has."""
        require("hf", "transformers")
        channels = model.transform.input_size[0]
        if channels not in (1, 3):
            raise ValueError(
                f"Transformers reads pictures of 1 or 3 channels, not of {channels}: export to "
                "another format, such as timm"
            )
        rebuilt(model.backbone, model.config, channels=channels)

    def write(self, model: TrainedModel, folder: Path) -> None:
        """Write the folder of timm, without what its wrapper in Transformers says by itself."""
        channels = model.transform.input_size[0]
        fresh = rebuilt(model.backbone, model.config, channels=channels)
        write_timm(fresh, folder, model.transform)
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        del config["model_args"]["num_classes"]  # given twice, it would be refused
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def open(self, folder: Path) -> OpenedModel:
        """Return the model and the processor that Transformers makes of the folder."""
        from transformers import AutoImageProcessor, AutoModel

        with _without_progress():
            model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)

        @torch.no_grad()
        def encode(pictures: Sequence[Picture]) -> Features:
            features: Features = model(
                **processor(as_images(pictures), return_tensors="pt")
            ).pooler_output
            return features

        return OpenedModel(encode, read_clusterer(folder))

    def usage(self, model: TrainedModel) -> str:
        """Return code for Transformers."""
        return f"""\
{model.first_line}import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained(".").eval()
processor = AutoImageProcessor.from_pretrained(".")
{opening_code(model.transform.input_size[0])}
with torch.no_grad():
    inputs = processor(image, return_tensors="pt")
    features = model(**inputs).pooler_output  # (1, {model.features})
{"" if model.clusterer is None else USAGE}"""


@contextmanager
def _without_progress() -> Iterator[None]:
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
