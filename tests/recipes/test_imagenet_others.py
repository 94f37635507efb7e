"""The recipes of the other methods have the published numbers, and share what they say they do."""

from dataclasses import replace

import pytest

from swav.methods import JigsawConfig, PIRLConfig
from swav.recipes import RECIPES, make_config

# batch, epochs, crops, learning rate, weight decay, optimiser
PUBLISHED = {
    "deepcluster-r50-400ep": (4096, 400, "2x160,4x96", 4.8, 1e-6, "lars"),
    "deepcluster-r50-400ep-2x224": (4096, 400, "2x224", 4.8, 1e-6, "lars"),
    "deepcluster-r50-800ep": (4096, 800, "2x224,6x96", 4.8, 1e-6, "lars"),
    "sela-r50-400ep": (4096, 400, "2x160,4x96", 4.8, 1e-6, "lars"),
    "simclr-r50-100ep": (4096, 100, "2x224", 4.8, 1e-6, "lars"),
    "moco-r50-200ep": (256, 200, "1x224,1x224", 0.03, 1e-4, "sgd"),
    "instdisc-r50-200ep": (256, 200, "1x224", 0.03, 1e-4, "sgd"),
    "byol-r50-1000ep": (4096, 1000, "2x224", 0.2 * 16, 1.5e-6, "lars"),
    "barlow-r50-1000ep": (2048, 1000, "1x224,1x224", 0.2 * 8, 1e-6, "lars"),
    "vicreg-r50-100ep": (2048, 100, "1x224,1x224", 0.2 * 8, 1e-6, "lars"),
    "rotation-r50-105ep": (256, 105, "2x224", 0.1, 1e-4, "sgd"),
    "jigsaw-r50-105ep": (256, 105, "2x255", 0.1, 1e-4, "sgd"),
    "relative-r50-70ep": (512, 70, "2x255", 0.2, 1e-4, "sgd"),
    "cpc-r50-200ep": (512, 200, "1x256", 4e-4, 1e-5, "adamw"),
    "pirl-r50-800ep": (1024, 800, "1x224,1x255", 0.12, 1e-4, "sgd"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_as_published(name: str) -> None:
    made = make_config(name)
    optim = made.optim
    recipe = (
        optim.batch_size,
        made.epochs,
        made.views.description,
        pytest.approx(optim.learning_rate),
        optim.weight_decay,
        optim.optimizer,
    )
    assert recipe == PUBLISHED[name]
    assert made.method.name == name.partition("-")[0]
    assert made.backbone.name == "resnet50"


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith(("deepcluster", "sela"))])
def test_offline_clusters_in_single_precision_with_synchronised_batchnorm(name: str) -> None:
    made = make_config(name)
    assert (made.precision, made.sync_batchnorm) == ("32-true", True)


def test_instance_discrimination_looks_at_one_view_that_keeps_its_colour() -> None:
    made = make_config("instdisc-r50-200ep")
    (crop,) = made.views.groups
    augment = crop.augment
    assert (crop.count, crop.scale) == (1, (0.08, 1.0))
    assert (augment.jitter, augment.grey, augment.blur, augment.solarise) == (1.0, 0, 0, 0)
    assert {augment.brightness, augment.contrast, augment.saturation, augment.hue} == {0.4}
    assert not made.optim.decay_vectors
    with pytest.raises(ValueError, match="views 1x224: swav compares at least 2 views"):
        replace(made, method=make_config("cifar10-cpu").method)


def test_every_public_function_is_listed() -> None:
    others = [name for name in RECIPES if "-r50-" in name and not name.startswith("swav")]
    assert sorted(others) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_residual_branches_start_as_published(name: str) -> None:
    network = make_config(name).backbone.build(3)
    last = [weight for path, weight in network.named_parameters() if path.endswith("bn3.weight")]
    at_zero = name.startswith(("moco", "instdisc", "byol", "barlow", "vicreg"))
    assert all((weight == (0 if at_zero else 1)).all() for weight in last)
    assert len(last) == 16


def test_details_of_jigsaw_and_pirl() -> None:
    jigsaw, pirl = make_config("jigsaw-r50-105ep").method, make_config("pirl-r50-800ep")
    assert isinstance(jigsaw, JigsawConfig)
    assert (jigsaw.num_permutations, jigsaw.tile_dim) == (2000, 1000)
    method = pirl.method
    assert isinstance(method, PIRLConfig)
    assert (method.num_negatives, method.temperature, method.memory_momentum) == (32_000, 0.07, 0.5)
    assert [group.scale for group in pirl.views.groups] == [(0.08, 1.0), (0.6, 1.0)]
    assert (pirl.optim.final_learning_rate, pirl.optim.decay_vectors) == (0.00012, False)
    for group in pirl.views.groups:
        augment = group.augment
        assert (augment.jitter, augment.grey, augment.blur) == (1.0, 0.2, 0.0)
        assert (augment.brightness, augment.contrast, augment.saturation) == (0.4, 0.4, 0.4)
        assert augment.hue == 0.2
