"""The map is the same each time, keeps neighbours together and is kept in the run folder."""

from pathlib import Path

import numpy as np
import pytest

from swav.report import map_positions
from swav.report.map_positions import place, positions
from swav.run_folder.readers import Absent, Embeddings


def embeddings(num_images: int = 90, *, seed: int = 0) -> Embeddings:
    """Return three tight groups, one after the other."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(3, 8)).repeat(num_images // 3, axis=0)
    values = (centres + 0.05 * generator.normal(size=centres.shape)).astype(np.float32)
    paths = tuple(f"{index}.png" for index in range(num_images))
    return Embeddings(values=values, paths=paths, labels=None, classes=())


def test_groups_lie_apart_between_0_and_1() -> None:
    x_y = place(embeddings().values)
    assert x_y.min() >= 0
    assert x_y.max() <= 1
    middles = x_y.reshape(3, 30, 2).mean(axis=1)
    nearest = np.linalg.norm(x_y[:, None] - middles[None], axis=2).argmin(axis=1)
    assert nearest.tolist() == np.arange(3).repeat(30).tolist()


@pytest.mark.parametrize("values", [np.ones((9, 4)), np.eye(5), np.arange(12.0)[:, None] - 6])
def test_any_features_have_a_place(values: np.ndarray) -> None:
    assert np.isfinite(place(values.astype(np.float32))).all()


def test_a_map_is_kept_until_the_features_or_the_wish_changes(tmp_path: Path) -> None:
    first = positions(tmp_path, embeddings(), 30)
    assert first.rows.tolist() == np.linspace(0, 89, 30).round().tolist()
    assert first.rule.startswith("30 of 90 pictures, evenly through the set, by t-SNE")
    made = (tmp_path / "map.npz").stat().st_mtime_ns
    again = positions(tmp_path, embeddings())
    assert (again.x_y == first.x_y).all()
    assert (tmp_path / "map.npz").stat().st_mtime_ns == made
    assert len(positions(tmp_path, embeddings(), 90).rows) == 90
    other = positions(tmp_path, embeddings(seed=1))
    assert len(other.rows) == 90
    with np.load(tmp_path / "map.npz") as kept:
        assert kept["paths"].tolist() == list(embeddings().paths)
        assert (np.stack([kept["x"], kept["y"]], axis=1) == other.x_y).all()


def test_too_few_pictures_have_no_map_and_too_many_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="needs 5 pictures, the run has 3"):
        positions(tmp_path, embeddings(3))
    with pytest.raises(ValueError, match=r"ask for 5 to 20,000"):
        positions(tmp_path, embeddings(), 20_001)


def test_pictures_without_a_place_of_their_own_lie_between_those_most_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_positions, "AT_THE_END", 40)
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.eye(4, 8), 50, axis=0)  # four kinds of pictures, one after the other
    values = (kinds + 0.01 * rng.normal(size=kinds.shape)).astype(np.float32)
    everywhere = map_positions.place_all(values)
    rows = np.linspace(0, 199, 40).round().astype(int)
    np.testing.assert_array_equal(everywhere[rows], place(values[rows]))
    middles = everywhere.reshape(4, 50, 2).mean(axis=1)
    nearest = np.linalg.norm(everywhere[:, None] - middles, axis=2).argmin(axis=1)
    assert nearest.tolist() == np.repeat(range(4), 50).tolist()
