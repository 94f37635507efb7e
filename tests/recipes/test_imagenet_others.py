"""The recipes of the other methods have the published numbers, and share what they say they do."""

from dataclasses import replace

import pytest

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


@pytest.mark.parametrize("name", PUBLISHED)
def test_residual_branches_start_as_published(name: str) -> None:
    network = make_config(name).backbone.build(3)
    last = [weight for path, weight in network.named_parameters() if path.endswith("bn3.weight")]
    at_zero = name.startswith(("moco", "instdisc", "byol", "barlow", "vicreg"))
    assert all((weight == (0 if at_zero else 1)).all() for weight in last)
    assert len(last) == 16


def test_one_cpu_recipe_for_each_method_with_one_budget() -> None:
    swav = make_config("cifar10-cpu")
    names = [name for name in RECIPES if name.endswith("-cifar10-cpu")]
    assert {name.partition("-")[0] for name in names} >= {"simclr", "sela", "deepcluster", "moco"}
    for name in names:
        made = make_config(name)
        assert made.method.name == name.partition("-")[0]
        assert (made.optim == swav.optim) is not (made.method.name == "byol")  # small steps
        alike = replace(made, method=swav.method, optim=swav.optim)
        if made.method.pretext is None:
            assert alike == swav
        else:  # its tiles need other views
            assert replace(alike, views=swav.views) == swav
