"""The recipes of the pretext tasks have the published numbers, and their views can be cut."""

import pytest

from swav.data.views.pretext_tasks import JigsawViews
from swav.methods import JigsawConfig, PIRLConfig
from swav.recipes import RECIPES, make_config

# batch, epochs, views, learning rate
PUBLISHED = {
    "rotation-r50-105ep": (256, 105, "2x224", 0.1),
    "jigsaw-r50-105ep": (256, 105, "2x255", 0.1),
    "relative-r50-70ep": (512, 70, "2x255", 0.2),
    "pirl-r50-800ep": (1024, 800, "1x224,1x255", 0.12),
}
EVERY = [name for name in RECIPES if name.partition("-")[0] in {n.split("-")[0] for n in PUBLISHED}]


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_as_published(name: str) -> None:
    made = make_config(name)
    optim = made.optim
    numbers = (optim.batch_size, made.epochs, made.views.description, optim.learning_rate)
    assert numbers == PUBLISHED[name]
    assert (optim.optimizer, made.backbone.name) == ("sgd", "resnet50")


def test_details_as_published() -> None:
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


@pytest.mark.parametrize("name", EVERY)
def test_every_recipe_is_of_its_method_and_can_cut_its_views(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JigsawViews, "_known", lambda _: None)  # 2,000 permutations take seconds
    made = make_config(name)
    assert made.method.name == name.partition("-")[0]
    assert made.method.pretext is not None
    made.method.pretext.check(made.views)


def test_each_has_a_variant_for_a_cpu_with_the_budget_of_the_others() -> None:
    usual = make_config("cifar10-cpu")
    for method in ("rotation", "jigsaw", "relative", "pirl"):
        made = make_config(f"{method}-cifar10-cpu")
        assert (made.backbone, made.optim, made.epochs) == (
            usual.backbone,
            usual.optim,
            usual.epochs,
        )
