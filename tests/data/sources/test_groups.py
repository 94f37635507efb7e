"""Groups: partners as a brute force allows them, views of the partner, no labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from swav.data.batch import Batch
from swav.data.loader import StepViews, loader
from swav.data.sources.groups import ImageGroups, column_groups, folder_groups, read_times
from swav.data.sources.open import SourceConfig, from_arrays
from swav.data.sources.pictures import Pictures
from swav.data.views.augment import AugmentConfig
from swav.data.views.crops import CropGroup, ViewsConfig

NUM = 40
EVERYONE = np.arange(NUM)
AS_IT_IS = AugmentConfig(jitter=0, grey=0, blur=0)
PLAIN = ViewsConfig(
    groups=(
        CropGroup(count=2, size=(4, 4), scale=(1.0, 1.0), augment=AS_IT_IS),
        CropGroup(count=3, size=(4, 4), scale=(0.5, 1.0), augment=AS_IT_IS),
    ),
    mean=(0.0,),
    std=(1.0,),
)
BY_COLUMN = replace(PLAIN, group="column")


def drawn_groups() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 9, NUM), generator.uniform(0, 100, NUM).round(1)


@pytest.mark.parametrize("window", [None, 0.0, 10.0, 1000.0])
def test_partners_are_all_that_a_brute_force_allows(window: float | None) -> None:
    groups, times = drawn_groups()
    image_groups = ImageGroups(groups, None if window is None else times, window=window)
    met: list[set[int]] = [set() for _ in range(NUM)]
    for epoch in range(150):
        for index, partner in enumerate(image_groups.partners(EVERYONE, seed=0, epoch=epoch)):
            met[index].add(int(partner))
    allowed = [
        {
            other
            for other in range(NUM)
            if other != index
            and groups[other] == groups[index]
            and (window is None or abs(times[other] - times[index]) <= window)
        }
        or {index}
        for index in range(NUM)
    ]
    assert met == allowed
    assert image_groups.num_paired == sum(met[index] != {index} for index in range(NUM))


def test_every_other_of_a_group_is_drawn_alike() -> None:
    image_groups = ImageGroups(np.zeros(5, dtype=np.int64))
    drawn = [image_groups.partners(np.array([3]), seed=0, epoch=epoch)[0] for epoch in range(2000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[3] == 0
    assert counts[[0, 1, 2, 4]] == pytest.approx(500, abs=80)  # four standard deviations


def test_a_partner_belongs_to_seed_epoch_and_picture() -> None:
    image_groups = ImageGroups(np.zeros(NUM, dtype=np.int64))
    whole = image_groups.partners(EVERYONE, seed=0, epoch=0)
    rows = np.array([7, 0, 30])
    assert np.array_equal(image_groups.partners(rows, seed=0, epoch=0), whole[rows])
    for seed, epoch in ((1, 0), (0, 1)):
        assert not np.array_equal(image_groups.partners(EVERYONE, seed=seed, epoch=epoch), whole)


def test_groups_are_read_from_folders_and_columns() -> None:
    assert folder_groups(["a/1.png", "b/c/1.png", "a/2.png", "b/2.png"]).tolist() == [0, 1, 0, 2]
    assert column_groups(["x", "", "y", "", "x"]).tolist() == [0, 1, 2, 3, 0]
    with pytest.raises(ValueError, match="all 2 pictures lie in one folder"):
        folder_groups(["1.png", "2.png"])


def test_times_are_numbers_or_dates() -> None:
    dates = ["2024-05-01T12:00:00", "2024-05-01T12:00:30", "2024-05-01T14:00:00+02:00"]
    assert read_times(["3", "-1.5"]).tolist() == [3, -1.5]
    assert np.diff(read_times(dates)).tolist() == [30, -30]
    for value in ("yesterday", "nan", ""):
        with pytest.raises(ValueError, match="column 'time' holds"):
            read_times([value])


def grey(number: int = NUM) -> np.ndarray:
    """Return pictures that are all of one value: their position."""
    return np.broadcast_to(np.arange(number, dtype=np.uint8)[:, None, None], (number, 6, 6)).copy()


def shown(batch: Batch) -> np.ndarray:
    """Return which picture each view shows: (views, batch)."""
    return np.stack([(view.mean(dim=(1, 2, 3)) * 255).round().numpy() for view in batch.views])


def write_table(folder: Path, *, damaged: int | None = None) -> str:
    groups, times = drawn_groups()
    lines = ["path,label,group,time"]
    for index, values in enumerate(grey()):
        path = folder / f"{index:02}.png"
        Image.fromarray(values).save(path)
        if index == damaged:
            path.write_bytes(b"no picture")
        lines.append(f"{path.name},{index % 3},film {groups[index]},{times[index]}")
    (folder / "table.csv").write_text("\n".join(lines))
    return str(folder / "table.csv")


def views_of(views: ViewsConfig, pictures: Pictures) -> StepViews:
    image_groups = views.image_groups(pictures)
    assert image_groups is not None
    return StepViews(pictures, PLAIN, global_batch=8, seed=0, image_groups=image_groups)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("window", [None, 20.0])
def test_every_second_view_shows_the_partner(
    tmp_path: Path, in_memory: bool, window: float | None
) -> None:
    config = SourceConfig(data=write_table(tmp_path), channels=1)
    pictures = config.build().load() if in_memory else config.build()
    groups, times = drawn_groups()
    views = views_of(replace(BY_COLUMN, time_window=window), pictures)
    assert views.image_groups is not None
    moved = 0
    for number, batch in enumerate(loader(views, start_step=0, total_steps=6, workers=1)):
        indices = batch.indices.numpy()
        partners = views.image_groups.partners(indices, seed=0, epoch=number // 5)
        assert (groups[partners] == groups[indices]).all()
        assert window is None or (abs(times[partners] - times[indices]) <= window).all()
        assert np.array_equal(shown(batch), [indices, partners, indices, partners, indices])
        moved += int((indices != partners).sum())
        alone = views.batch(number)
        assert all(torch.equal(*both) for both in zip(batch.views, alone.views, strict=True))
    assert moved > 20


def test_a_partner_that_cannot_be_read_is_replaced_by_the_picture_itself(tmp_path: Path) -> None:
    table = write_table(tmp_path, damaged=3)
    config = SourceConfig(data=table, channels=1, max_bad_fraction=0.1)
    pictures = config.build()
    views = views_of(BY_COLUMN, pictures)
    assert views.image_groups is not None
    replaced = 0
    for number in range(30):
        batch = views.batch(number)
        indices = batch.indices.numpy()
        partners = views.image_groups.partners(indices, seed=0, epoch=number // 5)
        replaced += int((partners == 3).sum())
        expected = np.where(partners == 3, indices, partners)
        assert np.array_equal(shown(batch)[1], expected)
    assert replaced > 0


def test_groups_stay_with_their_pictures_when_some_are_left_out(tmp_path: Path) -> None:
    table = write_table(tmp_path, damaged=3)
    config = SourceConfig(data=table, channels=1, max_bad_fraction=0.1)
    groups, _ = drawn_groups()
    loaded = config.build().load()
    assert len(loaded) == NUM - 1
    kept = np.delete(np.arange(NUM), 3)
    assert list(loaded.columns["group"]) == [f"film {group}" for group in groups[kept]]
    some = loaded.subset(np.array([5, 1]))
    assert list(some.columns["group"]) == [f"film {group}" for group in groups[kept[[5, 1]]]]


def test_groups_and_labels_know_nothing_of_each_other(tmp_path: Path) -> None:
    table = Path(write_table(tmp_path))
    config = SourceConfig(data=str(table), channels=1)
    first = views_of(BY_COLUMN, config.build().load())[1]
    renamed = [line.split(",") for line in table.read_text().splitlines()]
    lines = [",".join([path, "0", *rest]) for path, _, *rest in renamed[1:]]
    table.write_text("\n".join(["path,label,group,time", *lines]))
    again = views_of(BY_COLUMN, config.build().load())[1]
    assert torch.equal(first.indices, again.indices)
    assert all(torch.equal(*both) for both in zip(first.views, again.views, strict=True))


def test_groups_by_folder(tmp_path: Path) -> None:
    for index, values in enumerate(grey(12)):
        path = tmp_path / "part" / f"object {index % 4}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    config = SourceConfig(data=str(tmp_path), channels=1)
    pictures = config.build().load()
    numbers = [int(Path(name).stem) for name in pictures.names]
    own, other, *_ = shown(views_of(replace(PLAIN, group="folder"), pictures).batch(0)).astype(int)
    assert (own % 4 == other % 4).all()
    assert (own != other).all()
    assert sorted(numbers) == list(range(12))


def test_without_groups_nothing_changes() -> None:
    pictures = from_arrays(grey(), channels=1)
    assert PLAIN.image_groups(pictures) is None
    alone = ImageGroups(np.arange(NUM))
    one = StepViews(pictures, PLAIN, global_batch=8, seed=0)[2]
    other = StepViews(pictures, PLAIN, global_batch=8, seed=0, image_groups=alone)[2]
    assert all(torch.equal(*both) for both in zip(one.views, other.views, strict=True))


def test_errors_teach(tmp_path: Path) -> None:
    arrays = from_arrays(grey(), channels=1)
    with pytest.raises(ValueError, match=r"no column 'group': give a CSV .* 'path' and 'group'"):
        BY_COLUMN.image_groups(arrays)
    with pytest.raises(ValueError, match="all 40 pictures lie in one folder"):
        replace(PLAIN, group="folder").image_groups(arrays)
    with pytest.raises(ValueError, match="give group as well"):
        replace(PLAIN, time_window=3.0)
    with pytest.raises(ValueError, match=r"time_window -1.0 must be 0 or more"):
        replace(PLAIN, group="folder", time_window=-1.0)
    source = SourceConfig(data=write_table(tmp_path))
    with pytest.raises(ValueError, match=r"no picture of .* a larger views.time_window"):
        replace(BY_COLUMN, time_window=0.0).image_groups(source.build().load())
