"""What features are worth: one evaluation a file, a configuration and a ``run`` each."""

from swav.evals.clusters import ClustersConfig
from swav.evals.detection import DetectionConfig
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.extract import (
    Encoder,
    Features,
    evaluating,
    extract,
    network_encoder,
    pixel_encoder,
    pixel_features,
)
from swav.evals.harness.subject import Subject
from swav.evals.knn import KNNConfig
from swav.evals.layers import LayersConfig
from swav.evals.linear import LinearConfig
from swav.evals.linear_sgd import LinearSGDConfig
from swav.evals.part_retrieval import PartRetrievalConfig
from swav.evals.retrieval import RetrievalConfig
from swav.evals.semisup import SemisupConfig
from swav.evals.transfer import TransferConfig
from swav.run_folder.result import Result

EvalConfig = (
    KNNConfig
    | LinearConfig
    | LinearSGDConfig
    | LayersConfig
    | SemisupConfig
    | TransferConfig
    | DetectionConfig
    | ClustersConfig
    | RetrievalConfig
    | PartRetrievalConfig
)
"""The union of all evaluations' configurations."""

__all__ = [
    "ClustersConfig",
    "DetectionConfig",
    "Encoder",
    "EvalConfig",
    "EvalData",
    "Features",
    "KNNConfig",
    "LayersConfig",
    "LinearConfig",
    "LinearSGDConfig",
    "PartRetrievalConfig",
    "Result",
    "RetrievalConfig",
    "SemisupConfig",
    "Subject",
    "TransferConfig",
    "evaluating",
    "extract",
    "network_encoder",
    "pixel_encoder",
    "pixel_features",
]
