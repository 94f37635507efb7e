"""Finding pictures again: known answers for known encoders, and what a part is."""

import numpy as np
import pytest
import torch
from PIL import Image

from swav.data.sources.open import SourceConfig, from_arrays
from swav.evals import Encoder, PartRetrievalConfig, Subject, part_retrieval, pixel_encoder
from swav.evals.harness.eval_data import one_set

PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def flat_pictures(num_images: int) -> torch.Tensor:
    """Return pictures of one grey each, so that any part shows which picture it is of."""
    greys = torch.linspace(10, 250, num_images).byte()
    return greys[:, None, None, None].expand(-1, 3, 20, 20).contiguous()


def mean_greys(pictures):
    return torch.stack([picture.float().mean() for picture in pictures]) / 255


def as_angles(greys):
    """Return a direction for each picture's mean grey, not fooled by its size."""
    return torch.stack([greys.cos(), greys.sin()], dim=1)


KNOWS_GREY = Encoder(mean_greys, as_angles)


def test_an_encoder_that_knows_a_picture_by_any_part_finds_all():
    pictures = from_arrays(flat_pictures(50))
    result = part_retrieval.run(PartRetrievalConfig(**PLAIN), KNOWS_GREY, pictures)
    assert result.metrics == {"recall_at_1": 1, "recall_at_5": 1}
    assert result.counts == {"gallery": 50, "parts": 50}


def test_features_of_the_whole_pictures_are_not_made_twice():
    pictures, seen = from_arrays(flat_pictures(50)), []

    def counted(greys):
        seen.append(len(greys))
        return as_angles(greys)

    encoder = Encoder(mean_greys, counted)
    subject = Subject(one_set(pictures), encoder_of=lambda *_, **__: encoder)
    config = PartRetrievalConfig(**PLAIN, max_parts=20)
    result = config.evaluate(subject)
    assert result == part_retrieval.run(config, KNOWS_GREY, pictures)
    assert config.evaluate(subject) == result
    assert seen == [50, 20, 20]


def test_a_picture_that_cannot_be_read_shifts_no_answer(tmp_path):
    for number, pixels in enumerate(flat_pictures(30)):
        path = tmp_path / f"{number:02d}.png"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    path = tmp_path / "07.png"
    path.write_bytes(path.read_bytes()[:-30])
    pictures = SourceConfig(data=str(tmp_path), max_bad_fraction=0.5).build()
    result = part_retrieval.run(PartRetrievalConfig(**PLAIN), KNOWS_GREY, pictures)
    assert result.counts == {"gallery": 29, "parts": 29}
    assert result.metrics == {"recall_at_1": 1, "recall_at_5": 1}


def test_an_encoder_that_knows_nothing_is_at_chance():
    generator = torch.Generator().manual_seed(0)

    def guess(greys):
        return torch.randn(len(greys), 16, generator=generator)

    result = part_retrieval.run(
        PartRetrievalConfig(), Encoder(mean_greys, guess), from_arrays(flat_pictures(200))
    )
    assert result.metrics["recall_at_1"] <= 0.03
    low, high = result.intervals["recall_at_5"]
    assert low < 5 / 200 < high


def test_the_whole_picture_unchanged_is_found_by_its_pixels(made):
    whole = PartRetrievalConfig(**PLAIN, area=(1.0, 1.0), ratio=(1.0, 1.0))
    pictures = made.pictures_of(60)
    assert part_retrieval.run(whole, pixel_encoder(pictures), pictures).metrics["recall_at_1"] == 1
    hard = part_retrieval.run(PartRetrievalConfig(), pixel_encoder(pictures), pictures).metrics
    assert hard["recall_at_1"] < 0.5


def test_parts_lie_inside_and_have_the_asked_area_and_ratio():
    rows, columns = torch.meshgrid(torch.arange(90), torch.arange(120), indexing="ij")
    picture = torch.stack([rows, columns, rows * 0]).byte()  # each pixel says where it is
    config = PartRetrievalConfig(**PLAIN)
    found = part_retrieval.random_parts([picture] * 300, range(300), config)
    areas = [each.shape[1] * each.shape[2] / (90 * 120) for each in found]
    ratios = [each.shape[2] / each.shape[1] for each in found]
    assert 0.095 < min(areas) < 0.12
    assert 0.28 < max(areas) < 0.305
    assert 0.72 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.38
    for each in found:
        top, left = each[0, 0, 0], each[1, 0, 0]
        height, width = each.shape[1:]
        assert torch.equal(each, picture[:, top : top + height, left : left + width])
    tops, lefts = (np.array([int(each[axis, 0, 0]) for each in found]) for axis in (0, 1))
    assert len(set(tops)) > 30
    assert len(set(lefts)) > 30
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


@pytest.mark.parametrize("size", [(1, 1), (200, 2), (3, 300)])
def test_any_picture_has_a_part(size):
    picture = torch.zeros(3, *size, dtype=torch.uint8)
    (found,) = part_retrieval.random_parts([picture], [0], PartRetrievalConfig())
    assert found.numel() > 0
    assert found.shape[1] <= size[0]
    assert found.shape[2] <= size[1]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_jitter_changes_values_of_any_number_of_channels(made, channels):
    picture = made.pictures_of(1, channels=channels)[0]
    plain, jittered, again = (
        part_retrieval.random_parts([picture], [4], config)[0]
        for config in (PartRetrievalConfig(**PLAIN), PartRetrievalConfig(), PartRetrievalConfig())
    )
    assert plain.shape == jittered.shape
    assert not torch.equal(plain, jittered)
    assert torch.equal(jittered, again)


def test_a_part_depends_on_seed_and_position_only(made):
    pictures = made.pictures_of(8)
    together = part_retrieval.random_parts(
        [pictures[row] for row in range(8)], range(8), PartRetrievalConfig()
    )
    for row in range(8):
        (alone,) = part_retrieval.random_parts([pictures[row]], [row], PartRetrievalConfig())
        assert torch.equal(alone, together[row])
    (other,) = part_retrieval.random_parts([pictures[0]], [0], PartRetrievalConfig(seed=1))
    assert other.shape != together[0].shape or not torch.equal(other, together[0])


def test_only_so_many_are_looked_up_but_among_all():
    config = PartRetrievalConfig(**PLAIN, max_parts=7)
    pictures = from_arrays(flat_pictures(40))
    result = part_retrieval.run(config, KNOWS_GREY, pictures)
    assert result.counts == {"gallery": 40, "parts": 7}
    assert result.metrics["recall_at_1"] == 1
    drawn = [
        tuple(part_retrieval.chosen(40, PartRetrievalConfig(max_parts=7, seed=seed)))
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_fewer_pictures_than_ranks_still_count():
    result = part_retrieval.run(
        PartRetrievalConfig(**PLAIN), KNOWS_GREY, from_arrays(flat_pictures(3))
    )
    assert result.metrics == {"recall_at_1": 1, "recall_at_5": 1}
    with pytest.raises(ValueError, match="too few"):
        part_retrieval.run(PartRetrievalConfig(), KNOWS_GREY, from_arrays(flat_pictures(1)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"area": (0.3, 0.1)},
        {"area": (0.0, 0.1)},
        {"ratio": (0.0, 1.0)},
        {"contrast": 2.0},
        {"hue": 0.7},
        {"max_parts": 0},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PartRetrievalConfig(**wrong)
