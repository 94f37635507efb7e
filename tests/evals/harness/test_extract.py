"""Extraction: every readable picture, in order, and a network left as it was."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.open import SourceConfig, from_arrays
from swav.evals import (
    ClustersConfig,
    LinearSGDConfig,
    PartRetrievalConfig,
    SemisupConfig,
    Subject,
    TransferConfig,
    extract,
    pixel_features,
)
from swav.evals.harness.eval_data import one_set
from swav.evals.harness.extract import features_of
from swav.evals.harness.finetune import FineTuneConfig

TRANSFORM = EvalTransform(input_size=(3, 12, 12), mean=(0.5,) * 3, std=(0.2,) * 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
    )


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_row_is_the_networks_answer_to_that_picture(made, batch_size):
    backbone, pictures = network(), made.pictures_of(10)
    found = extract(backbone, pictures, TRANSFORM, batch_size=batch_size)
    backbone.eval()
    expected = torch.cat([backbone(TRANSFORM([pictures[row]])) for row in range(10)])
    torch.testing.assert_close(found.values, expected.detach())
    assert found.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert list(found.names) == list(pictures.names)
    assert found.classes == pictures.classes
    assert not found.values.requires_grad


def test_the_network_is_left_as_it_was(made):
    backbone = network()
    backbone[1].eval()  # a frozen part inside a network in training
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    extract(backbone, made.pictures_of(6), TRANSFORM)
    assert [module.training for module in backbone] == [True, False, True, True, True]
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_network_is_left_as_it_was_even_after_an_error(made):
    backbone = network()
    with pytest.raises(ValueError, match="channels"):
        extract(backbone, made.pictures_of(2, channels=1), TRANSFORM)
    assert backbone.training


def test_unreadable_pictures_are_left_out_of_every_column(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for shade in range(3):
            picture = Image.new("RGB", (12, 12), (80 * shade, 0, 0))
            picture.save(tmp_path / kind / f"{shade}.png")
    (tmp_path / "cat/1.png").write_bytes(b"not a picture")
    pictures = SourceConfig(data=str(tmp_path), max_bad_fraction=0.5).build()
    found = extract(network(), pictures, TRANSFORM)
    whole = [name for name in pictures.names if name != "cat/1.png"]
    assert list(found.names) == whole
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    backbone = network().eval()
    alone = torch.cat([backbone(TRANSFORM([pictures[row]])) for row in (0, 2, 3, 4, 5)])
    torch.testing.assert_close(found.values, alone.detach())


def test_pixels_are_standardised_over_the_set_and_keep_their_order():
    values = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    values[:, 0, 0] = 7  # a corner that never changes
    found = pixel_features(from_arrays(values)).values
    pixels = torch.from_numpy(values).permute(0, 3, 1, 2).double() / 255
    expected = (pixels - pixels.mean(dim=0)) / pixels.std(dim=0, correction=0)
    expected[:, :, 0, 0] = 0
    torch.testing.assert_close(found.double(), expected.flatten(1), atol=1e-4, rtol=0)


def test_pixels_of_one_set_can_be_standardised_over_another(made):
    fit, score = made.pictures_of(40), made.pictures_of(10, seed=1)
    both = pixel_features(from_arrays(torch.cat([fit.pixels, score.pixels])), fit=fit, size=8)
    torch.testing.assert_close(pixel_features(score, fit=fit, size=8).values, both.values[40:])
    assert both.values[:40].mean().abs() < 1e-4


def test_pixels_of_pictures_of_different_sizes_are_resized_one_by_one():
    sizes = [(20, 30), (8, 8), (64, 16)]
    arrays = [np.full((*size, 3), 40 * row, dtype=np.uint8) for row, size in enumerate(sizes)]
    found = pixel_features(from_arrays(arrays), size=4).values
    assert found.shape == (3, 48)
    torch.testing.assert_close(found[:, 0], torch.tensor([-1.0, 0.0, 1.0]) * 1.5**0.5)
    assert (found == found[:, :1]).all()


def test_features_that_are_not_finite_are_refused() -> None:
    pictures = from_arrays(np.zeros((3, 8, 8, 3), np.uint8))
    values = torch.ones(3, 2)
    values[1, 0] = torch.nan
    with pytest.raises(ValueError, match="features of 1 of 3 pictures are not finite"):
        features_of(values, pictures, [0, 1, 2])


def test_any_number_of_loading_processes_gives_the_same_features(tmp_path):
    for shade in range(7):
        Image.new("RGB", (10 + shade, 12), (30 * shade, 0, 0)).save(tmp_path / f"{shade}.png")
    (tmp_path / "2.png").write_bytes(b"not a picture")
    pictures = SourceConfig(data=str(tmp_path), max_bad_fraction=0.5).build()
    alone, beside = (
        extract(network(), pictures, TRANSFORM, batch_size=2, workers=workers) for workers in (0, 2)
    )
    assert list(alone.names) == list(beside.names) == [f"{n}.png" for n in (0, 1, 3, 4, 5, 6)]
    assert torch.equal(alone.values, beside.values)


def test_any_number_of_loading_processes_gives_the_same_results_of_views_and_trainings(tmp_path):
    """Also of parts that are looked up, and with a picture that cannot be read."""
    for shade in range(9):
        colour = (25 * shade, 0, 200 if shade % 2 else 20)
        (tmp_path / "ab"[shade % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (10 + shade, 12), colour).save(tmp_path / "ab"[shade % 2] / f"{shade}.png")
    (tmp_path / "a" / "2.png").write_bytes(b"not a picture")
    pictures = SourceConfig(data=str(tmp_path), max_bad_fraction=0.5).build()
    backbone = network()
    backbone.num_features = 800
    short = FineTuneConfig(epochs=2, batch_size=4)
    tasks = (
        LinearSGDConfig(epochs=2, passes=2, batch_size=4),
        PartRetrievalConfig(),
        ClustersConfig(num_clusters=2),
        SemisupConfig(fractions=(1.0,), training=short),
        TransferConfig(ways=("finetune",), finetune=short),
    )
    for task in tasks:
        alone, beside = (
            task.evaluate(Subject(one_set(pictures), backbone, TRANSFORM, workers=workers))
            for workers in (0, 2)
        )
        assert alone.to_json() == beside.to_json()
