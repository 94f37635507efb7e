"""Published protocols by name: tasks with the settings of the literature."""

from collections.abc import Callable, Mapping

from swav.evals.detection import DetectionConfig, voc0712
from swav.evals.knn import KNNConfig, published
from swav.evals.semisup import SemisupConfig, one_percent, supervised, ten_percent
from swav.evals.transfer import TransferConfig, inat18, places205

Preset = Callable[[], KNNConfig | SemisupConfig | TransferConfig | DetectionConfig]

PRESETS: Mapping[str, Preset] = {
    "knn_imagenet": published,
    "semisup_1pct": one_percent,
    "semisup_10pct": ten_percent,
    "supervised": supervised,
    "places205": places205,
    "inat18": inat18,
    "voc0712": voc0712,
}
