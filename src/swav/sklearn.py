"""SwAV as an estimator of scikit-learn: each row of an array is a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from swav.data.loader import StepViews, loader
from swav.data.sources.open import SourceConfig, from_arrays
from swav.data.sources.pictures import Pictures
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig
from swav.engine import Clock, Objective, fit
from swav.engine.launch import launch
from swav.engine.optim import OptimConfig
from swav.methods import SwAVConfig
from swav.nn.heads import HeadConfig
from swav.recipes.cifar10_cpu import SMALL_RESNET
from swav.recipes.train_config import TrainConfig
from swav.training.clusters import clusters_of_method
from swav.training.networks import build_objective, transform_of
from swav.training.picture_encoder import PictureEncoder

__all__ = ["SwAVClusters"]

LONGEST_ROW = 100
"""Values that are taken for a picture of one row; more are a picture that was flattened."""
SMALL_SIDE = 32
"""Pictures of which no side is longer are doubled, as the network halves them twice."""
AUGMENT = AugmentConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.0)


class SwAVClusters(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    ClusterMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Train SwAV on pictures: ``transform`` gives their features, ``predict`` their clusters.

    No run folder is written. Values that are not bytes are scaled by the smallest and the largest
    value that ``fit`` has seen.

    Args:
        n_clusters: prototypes; those that no picture of ``fit`` is nearest to are left out.
        epochs: passes over the pictures.
        batch_size: pictures of a step, at most.
        learning_rate: of AdamW.
        image_shape: height, width and, for more than one, channels of the picture in each row; by
            default a picture of one row.
        augment: an ``AugmentConfig``, how strongly views are altered; by default half the jitter.
        device: auto, cpu, cuda, mps, or one device such as cuda:1.
        random_state: of weights and views.
    """

    # as scikit-learn wants it: any value is taken, and fit looks at them
    def __init__(
        self,
        n_clusters: Any = 10,
        *,
        epochs: Any = 20,
        batch_size: Any = 64,
        learning_rate: Any = 1e-3,
        image_shape: Any = None,
        augment: Any = None,
        device: Any = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.image_shape = image_shape
        self.augment = augment
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "SwAVClusters":  # noqa: ARG002
        """Train on the pictures in the rows of ``X``; ``labels_`` are their clusters.

        Raises:
            ValueError: if rows do not hold pictures of ``image_shape``.
        """
        values = validate_data(self, X, ensure_min_samples=2)
        self.min_, self.max_ = float(values.min()), float(values.max())
        pixels = self._pixels(values)
        seed = int(check_random_state(self.random_state).randint(2**31))
        config = self._config(pixels.shape, seed)
        pictures = from_arrays(pixels, channels=config.data.channels)
        objective = _trained(config, pictures)
        self.encoder_ = PictureEncoder(objective, transform_of(config), config.data)
        self._n_features_out = int(objective.encoder.num_features)  # type: ignore[arg-type]
        nearest = self._scores(pixels).argmax(axis=1)
        self.prototypes_, self.labels_ = np.unique(nearest, return_inverse=True)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of pictures, a row for each, as float32."""
        pixels = self._checked(X)
        features: np.ndarray = self.encoder_.encode(pixels).numpy()
        return features

    def predict(self, X: Any) -> np.ndarray:
        """Return the cluster of each picture; it does not depend on the others."""
        pixels = self._checked(X)
        clusters: np.ndarray = self._scores(pixels)[:, self.prototypes_].argmax(axis=1)
        return clusters

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _scores(self, pixels: UInt8[np.ndarray, "images ..."]) -> np.ndarray:
        """Return the probability of each prototype."""
        clusters = clusters_of_method(self.encoder_.objective)
        assert clusters is not None, "SwAV has clusters"
        probabilities: np.ndarray = clusters.probabilities(self.encoder_.encode(pixels)).numpy()
        return probabilities

    def _checked(self, X: Any) -> UInt8[np.ndarray, "images ..."]:
        check_is_fitted(self)
        return self._pixels(validate_data(self, X, reset=False))

    def _pixels(self, values: np.ndarray) -> UInt8[np.ndarray, "images ..."]:
        """Return the rows as pictures of bytes, (images, height, width, channels)."""
        num_values = values.shape[1]
        if self.image_shape is None and num_values > LONGEST_ROW:
            raise ValueError(
                f"{num_values} values are too many for a picture of one row: give image_shape, "
                "height and width, and channels if there are several"
            )
        shape = (*(self.image_shape or (1, num_values)), 1)[:3]
        if np.prod(shape) != num_values:
            raise ValueError(f"image_shape {shape} does not fit rows of {num_values} values")
        if values.dtype != np.uint8:
            span = (self.max_ - self.min_) or 1.0
            values = (255 * ((values - self.min_) / span).clip(0, 1)).round().astype(np.uint8)
        return values.reshape(-1, *shape)

    def _config(self, shape: Sequence[int], seed: int) -> TrainConfig:
        num_images, height, width, channels = shape
        batch_size = min(self.batch_size, num_images)
        return TrainConfig(
            data=SourceConfig(data="arrays", channels=channels),
            views=_views(height, width, channels, self.augment or AUGMENT),
            backbone=SMALL_RESNET,
            method=SwAVConfig(
                num_prototypes=(max(self.n_clusters, 2),),
                head=HeadConfig(hidden_dim=256, embed_dim=64),
                epsilon=0.03,
                freeze_steps=0,
            ),
            optim=OptimConfig(
                optimizer="adamw",
                batch_size=batch_size,
                learning_rate=self.learning_rate,
                warmup_epochs=self.epochs / 10,
            ),
            epochs=self.epochs,
            device=self.device,
            seed=seed,
        )


def _views(height: int, width: int, channels: int, augment: AugmentConfig) -> ViewsConfig:
    """Return two views of the size and four of half the size, all of the pictures' proportions."""
    enlarged = 2 if max(height, width) <= SMALL_SIDE else 1
    large = (enlarged * height, enlarged * width)
    small = (-(-large[0] // 2), -(-large[1] // 2))
    ratio = (0.75 * width / height, width / height / 0.75)
    groups = (
        CropGroup(count=2, size=large, scale=(0.4, 1.0), ratio=ratio, augment=augment),
        CropGroup(count=4, size=small, scale=(0.2, 0.4), ratio=ratio, augment=augment),
    )
    return ViewsConfig(groups=groups, mean=(0.5,) * channels, std=(0.25,) * channels)


def _trained(config: TrainConfig, pictures: Pictures) -> Objective:
    """Return the method after its training."""
    # as many threads as the program has chosen
    fabric = launch(device=config.device, threads=torch.get_num_threads())
    objective = build_objective(config, num_images=len(pictures)).to(fabric.device)
    batch_size = config.optim.batch_size
    views = StepViews(pictures, config.views, global_batch=batch_size, seed=config.seed)
    clock = Clock(
        step=0,
        epoch=0,
        steps_per_epoch=views.steps_per_epoch,
        total_steps=views.steps_per_epoch * config.epochs,
        images=0,
        warmup_steps=round(config.optim.warmup_epochs * views.steps_per_epoch),
    )
    batches = loader(
        views, start_step=0, total_steps=clock.total_steps, workers=0, device=fabric.device
    )
    steps = fit(
        objective,
        batches,
        config.optim.build(objective),
        clock,
        learning_rate=config.optim.learning_rate_at,
        fabric=fabric,
        seed=config.seed,
    )
    for _ in steps:
        pass
    return objective.eval()
