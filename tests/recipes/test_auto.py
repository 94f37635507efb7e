"""``auto`` fits the pictures and the device, in a given time, and says the truth about it."""

from dataclasses import replace

import pytest
import torch

from swav.data.sources.pictures import DataFacts
from swav.engine import TrainingFacts
from swav.nn.backbones import BackboneConfig
from swav.recipes import explain, make_config
from swav.recipes.auto import CPU_SECONDS, HEAD_UP_TO, _cpu_row

SIZES = [1, 2, 30, 150, 1797, 1906, 5000, 50_000, 1_281_167]
SIDES = [8, 32, 64, 200, 500]


def facts(num_images: int, side: int = 64, channels: int = 3) -> DataFacts:
    return DataFacts(
        num_images=num_images,
        height=side,
        width=2 * side,
        channels=channels,
        num_classes=0,
        in_memory=True,
    )


@pytest.mark.parametrize("num_images", SIZES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_choices_fit_the_number_of_pictures(num_images: int, device: str) -> None:
    config = make_config("auto", facts(num_images), device)
    batch, method = config.optim.batch_size, config.method
    steps_per_epoch = num_images // batch
    assert batch <= max(num_images // 4, 2)
    assert method.freeze_steps <= max(steps_per_epoch * config.epochs // 2, 1)
    queue = method.resolved_queue_length(
        TrainingFacts(feature_dim=1, num_images=num_images, global_batch=batch)
    )
    if num_images >= 1000:
        assert batch + queue >= max(method.num_prototypes)
    assert 16 * (batch + queue) >= max(method.num_prototypes)
    assert config.device == device


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_crops_fit_the_size_of_the_pictures(side: int, device: str) -> None:
    views = make_config("auto", facts(2000, side), device).views
    sizes = [group.size[0] for group in views.groups]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= 8 * side  # more is refused
    assert max(sizes) <= 64 or device == "cuda"
    assert views.num_targets == 2


def test_views_of_tiny_pictures_keep_something_in_common() -> None:
    """Digits of 8 pixels stayed at ln K with small crops of 5 % (benchmarks/collapse.py)."""
    tiny, usual = (make_config("auto", facts(1797, side), "cpu") for side in (8, 32))
    assert [group.scale for group in tiny.views.groups] == [(0.4, 1.0), (0.25, 0.5)]
    assert [group.scale for group in usual.views.groups] == [(0.2, 1.0), (0.05, 0.4)]
    assert (tiny.method.epsilon, usual.method.epsilon) == (0.02, 0.03)


@pytest.mark.parametrize("num_images", SIZES)
@pytest.mark.parametrize("side", SIDES)
def test_a_cpu_gets_no_more_than_its_time(num_images: int, side: int) -> None:
    given = facts(num_images, side)
    epochs = make_config("auto", given, "cpu").epochs
    seconds = num_images * epochs / _cpu_row(given).pictures_per_second
    assert epochs == 1 or seconds <= CPU_SECONDS


def test_the_choice_depends_on_nothing_but_facts_and_device() -> None:
    assert make_config("auto", facts(1906), "cpu") == make_config("auto", facts(1906), "cpu")


def test_explains_each_choice_by_its_value() -> None:
    given = facts(1906)
    config = make_config("auto", given, "cpu")
    text = "\n".join(explain(config, given))
    for value in (
        "1,906 pictures",
        "64x128",
        "a CPU",
        config.views.description,
        config.backbone.name,
        f"{config.method.num_prototypes[0]} prototypes",
        f"{config.epochs} epochs",
        f"batch {config.optim.batch_size}",
    ):
        assert value in text
    assert "auto takes" not in text


def test_what_was_given_is_not_explained_as_a_choice() -> None:
    given = facts(1906)
    config = make_config("auto", given, "cpu")
    lines = explain(replace(config, epochs=3), given)
    assert [line for line in lines if "auto takes" in line] == [
        f"3 epochs (auto takes {config.epochs} epochs)"
    ]


def test_says_so_when_even_one_epoch_takes_too_long() -> None:
    given = facts(1_281_167, side=500)
    config = make_config("auto", given, "cpu")
    assert config.epochs == 1
    assert "more than ten minutes" in explain(config, given)[-1]


@pytest.mark.parametrize("init", ["timm", "lite0"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_published_start_has_its_network_and_sizes_it_knows(
    init: str, side: int, device: str
) -> None:
    made = make_config("auto", facts(300, side), device, init=init, tune="all")
    assert made.init == init
    expected = {"timm": "resnet18", "lite0": "tf_efficientnet_lite0"}
    assert made.backbone.title == expected[init]
    assert made.views.mean == {"timm": (0.485, 0.456, 0.406), "lite0": (0.5,) * 3}[init]
    sizes = [group.size[0] for group in made.views.groups]
    assert 64 <= max(sizes) <= 8 * side
    assert made.optim.learning_rate <= 1e-4
    text = "\n".join(explain(made, facts(300, side)))
    assert "as given" not in text
    assert f"backbone {expected[init]}: it has the weights to start from ({init})" in text


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_published_transformer_sees_whole_patches(name: str, device: str) -> None:
    backbone = BackboneConfig(name=name)
    made = make_config("auto", facts(300, 120), device, init="timm", backbone=backbone)
    patch = int(name.split("patch")[1][:2])
    sizes = [side for group in made.views.groups for side in group.size]
    assert not any(side % patch for side in sizes)
    assert min(sizes) >= 42
    if device == "cpu":
        network = backbone.build()
        assert network(torch.zeros(1, 3, *made.views.groups[1].size)).shape == (
            1,
            network.num_features,
        )


def test_a_cut_down_network_is_explained_as_such() -> None:
    given = facts(300)
    text = "\n".join(explain(make_config("auto", given, "cpu"), given))
    assert "backbone resnet18 (layers 1,1,1,1; channels 32,64,128,256" in text


@pytest.mark.parametrize(
    ("init", "num_images", "tune", "expected"),
    [
        ("lite0", HEAD_UP_TO, None, "head"),
        ("lite0", HEAD_UP_TO + 1, None, "all"),
        ("lite0", 300, "all", "all"),
        ("lite0", 300, "last:2", "last:2"),
        ("lite0", 50_000, "head", "head"),
        ("random", 300, None, "all"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_few_pictures_leave_published_weights_as_they_are(
    init: str, num_images: int, tune: str | None, expected: str, device: str
) -> None:
    given = facts(num_images)
    made = make_config("auto", given, device, init=init, tune=tune)
    assert made.tune == expected
    text = "\n".join(explain(made, given))
    assert ("prototypes alone, on features of the frozen network" in text) == (expected == "head")
    assert ("about 300 steps" in text) == (expected == "head")
    if expected == "head":
        steps = made.epochs * (num_images // made.optim.batch_size)
        assert 300 <= steps < 300 + num_images // made.optim.batch_size
    assert "auto takes" not in text


@pytest.mark.parametrize(
    ("name", "side", "shown"),
    [
        ("tf_efficientnet_lite0", 8, 64),
        ("tf_efficientnet_lite0", 20, 160),
        ("tf_efficientnet_lite0", 28, 224),
        ("tf_efficientnet_lite0", 500, 224),
        ("vit_tiny_patch16_224", 9, 64),
        ("vit_tiny_patch16_224", 1, 16),
    ],
)
def test_a_published_network_is_not_shown_small_pictures_as_large_ones(
    name: str, side: int, shown: int
) -> None:
    backbone, given = BackboneConfig(name=name), facts(300, side)
    made = make_config("auto", given, "cpu", init="timm", backbone=backbone)
    assert made.input is not None
    assert made.input.input_size == (3, shown, shown)
    assert f"frozen network at {shown}x{shown}: " in "\n".join(explain(made, given))
    other = make_config("cifar10-cpu", given, "cpu", init="timm", backbone=backbone)
    assert other.input is not None
    assert other.input.input_size == (3, 224, 224), "other recipes leave the size to the weights"


def test_too_many_pictures_for_published_weights_on_a_cpu_have_a_remedy() -> None:
    given = facts(50_000)
    made = make_config("auto", given, "cpu", init="lite0")
    assert "--tune head, which takes one pass of the network" in explain(made, given)[-1]
