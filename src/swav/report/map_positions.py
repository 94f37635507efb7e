"""Where every picture of the map lies: t-SNE of the features, kept in the run folder."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from swav.ops.neighbours import nearest
from swav.run_folder import layout
from swav.run_folder.atomic import replacing
from swav.run_folder.readers import Absent, Embeddings, array_names, read_arrays

AT_THE_END, MOST_POINTS = 2000, 20_000
"""Pictures of the map that the end of a run makes, and the most that can be asked for."""
FEWEST_POINTS = 5
COMPONENTS, PERPLEXITY = 50, 30
PLACED_NEIGHBOURS = 3
"""Pictures with a place of their own, in whose middle one without lies."""
KEPT = {"rows", "x", "y", "paths", "features"}


@dataclass(frozen=True, kw_only=True)
class Positions:
    """The pictures of a map."""

    rows: Int[np.ndarray, " images"]
    """Of the embeddings."""
    x_y: Float[np.ndarray, "images 2"]
    """From 0 to 1, at one scale for both."""
    of: int
    """Pictures that there are."""

    @property
    def rule(self) -> str:
        """How they were chosen and placed, in a sentence."""
        chosen = f"All {self.of:,} pictures"
        if len(self.rows) < self.of:
            chosen = f"{len(self.rows):,} of {self.of:,} pictures, evenly through the set"
        return (
            f"{chosen}, by t-SNE (scikit-learn, perplexity {_perplexity(len(self.rows))}) of the "
            f"{COMPONENTS} first principal components of their features at unit length."
        )


def positions(run_folder: Path, embeddings: Embeddings, most: int | None = None) -> Positions:
    """Return the map of a run, as it is kept or else made and kept.

    Args:
        run_folder: where ``map.npz`` is.
        embeddings: of the run; a map of others is made anew.
        most: pictures on the map; by default as many as the kept one has, or ``AT_THE_END``.

    Raises:
        Absent: if there are too few pictures.
        ValueError: if ``most`` is out of range.
    """
    num_images = len(embeddings.paths)
    if most is not None and not FEWEST_POINTS <= most <= MOST_POINTS:
        raise ValueError(f"{most} points of a map: ask for {FEWEST_POINTS} to {MOST_POINTS:,}")
    if num_images < FEWEST_POINTS:
        raise Absent(f"A map needs {FEWEST_POINTS} pictures, the run has {num_images}.")
    most = None if most is None else min(most, num_images)
    digest = blake2b(embeddings.values.tobytes(), digest_size=16).hexdigest()
    path = run_folder / layout.MAP
    kept = read_arrays(path, "") if array_names(path) >= KEPT else None
    is_current = kept is not None and str(kept["features"]) == digest
    if kept is not None and is_current and most in (None, len(kept["rows"])):
        x_y = np.stack([kept["x"], kept["y"]], axis=1)
        return Positions(rows=kept["rows"], x_y=x_y, of=num_images)
    rows = _evenly(num_images, most or AT_THE_END)
    x_y = place(embeddings.values[rows])
    _keep(path, rows, x_y, embeddings, digest)
    return Positions(rows=rows, x_y=x_y, of=num_images)


def place_all(values: Float[np.ndarray, "images features"]) -> Float[np.ndarray, "images 2"]:
    """Return a place for every picture: t-SNE of at most ``AT_THE_END``, evenly through the set.

    Others lie in the middle of the three pictures with a place whose features are most alike.
    """
    rows = _evenly(len(values), AT_THE_END)
    placed = place(values[rows])
    if len(rows) == len(values):
        return placed
    number = min(PLACED_NEIGHBOURS, len(rows))
    tensors = torch.from_numpy(values), torch.from_numpy(values[rows])
    found = nearest(*tensors, num_neighbours=number)
    everywhere: Float[np.ndarray, "images 2"] = placed[found.indices.numpy()].mean(axis=1)
    everywhere[rows] = placed
    return everywhere


def _evenly(number: int, most: int) -> Int[np.ndarray, " images"]:
    """Return at most so many rows, evenly, as sets are often sorted by class."""
    return np.linspace(0, number - 1, min(number, most)).round().astype(np.int64)


def place(values: Float[np.ndarray, "images features"]) -> Float[np.ndarray, "images 2"]:
    """Return t-SNE of features from 0 to 1, the same each time; similar features lie together."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    if np.ptp(unit, axis=0).max() < 1e-6:  # all alike: t-SNE would divide by their deviation
        return np.full((len(values), 2), 0.5, dtype=np.float32)
    components = min(COMPONENTS, *unit.shape)
    pca = PCA(components, svd_solver="full").fit_transform(unit.astype(np.float64))
    start = np.zeros((len(values), 2))
    start[:, : min(2, components)] = pca[:, :2]
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    tsne = TSNE(
        perplexity=_perplexity(len(values)), init=start, random_state=0, learning_rate="auto"
    )
    placed: Float[np.ndarray, "images 2"] = tsne.fit_transform(pca)
    placed = placed - placed.min(axis=0)
    size = max(float(placed.max()), 1e-12)
    # in the middle of the shorter side
    placed = (placed + (size - placed.max(axis=0)) / 2) / size
    return placed.astype(np.float32)


def _perplexity(num_points: int) -> int:
    """Return the usual one, or less where there are fewer than three times as many points."""
    return max(min(PERPLEXITY, (num_points - 1) // 3), 1)


def _keep(
    path: Path,
    rows: Int[np.ndarray, " images"],
    x_y: Float[np.ndarray, "images 2"],
    embeddings: Embeddings,
    digest: str,
) -> None:
    """Write ``map.npz``: arrays rows, paths, x, y, and a digest of the features they are of."""
    paths = np.array([embeddings.paths[row] for row in rows.tolist()])
    with replacing(path) as unfinished:
        np.savez_compressed(
            unfinished,
            rows=rows,
            paths=paths,
            x=x_y[:, 0],
            y=x_y[:, 1],
            features=np.array(digest),
        )
