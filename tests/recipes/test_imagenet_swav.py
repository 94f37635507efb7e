"""The paper's recipes have the numbers of the published scripts."""

from typing import NamedTuple

import pytest

from swav.recipes import make_config


class Script(NamedTuple):
    """A row of the table of published scripts."""

    batch_size: int
    epochs: int
    crops: str
    low: tuple[float, ...]
    queue: tuple[int, int]
    """Length, and epoch from which it is filled."""
    rates: tuple[float, float]
    """Learning rate, and where it ends."""
    warmup: tuple[int, float]
    """Epochs, and where they start."""
    freeze: int
    backbone: str
    hidden: int


LARGE = ((0, 0), (4.8, 0.0048), (10, 0.3), 313)
SMALL = ((3840, 15), (0.6, 0.0006), (0, 0.0), 5005)
R50, SIX, FOUR = ("resnet50", 2048), "2x224,6x96", "2x224,4x96"
SCRIPTS = {
    "swav-r50-100ep": Script(64 * 64, 100, SIX, (0.14, 0.05), *LARGE, *R50),
    "swav-r50-200ep": Script(64 * 64, 200, SIX, (0.14, 0.05), *LARGE, *R50),
    "swav-r50-400ep": Script(64 * 64, 400, SIX, (0.14, 0.05), *LARGE, *R50),
    "swav-r50-800ep": Script(64 * 64, 800, SIX, (0.14, 0.05), *LARGE, *R50),
    "swav-r50-400ep-2x224": Script(64 * 64, 400, "2x224", (0.08,), *LARGE, *R50),
    "swav-r50-200ep-bs256": Script(4 * 64, 200, SIX, (0.14, 0.05), *SMALL, *R50),
    "swav-r50-400ep-bs256": Script(4 * 64, 400, SIX, (0.14, 0.05), *SMALL, *R50),
    "swav-r50-400ep-8gpu": Script(8 * 32, 400, SIX, (0.14, 0.05), *SMALL, *R50),
    "swav-r50w2-400ep": Script(128 * 32, 400, FOUR, (0.14, 0.05), *LARGE, "resnet50w2", 8192),
    "swav-r50w4-400ep": Script(
        64 * 40, 400, FOUR, (0.08, 0.08), (2560, 0), *LARGE[1:], "resnet50w4", 8192
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_numbers_of_the_script(name: str) -> None:
    config, script = make_config(name), SCRIPTS[name]
    method, optim = config.method, config.optim
    recipe = Script(
        batch_size=optim.batch_size,
        epochs=config.epochs,
        crops=config.views.description,
        low=tuple(group.scale[0] for group in config.views.groups),
        queue=(int(method.queue_length), int(method.queue_start_epoch)),
        rates=(optim.learning_rate, optim.final_learning_rate),
        warmup=(int(optim.warmup_epochs), optim.start_learning_rate),
        freeze=method.freeze_steps,
        backbone=config.backbone.name,
        hidden=method.head.hidden_dim,
    )
    assert recipe == script
    assert tuple(group.scale[1] for group in config.views.groups) in {(1.0, 0.14), (1.0,)}


@pytest.mark.parametrize("name", [*SCRIPTS, "swav-r50w5-400ep"])
def test_what_all_scripts_share(name: str) -> None:
    config = make_config(name)
    method, optim = config.method, config.optim
    assert (method.name, method.num_prototypes, method.head.embed_dim) == ("swav", (3000,), 128)
    assert (method.temperature, method.epsilon, method.iterations) == (0.1, 0.05, 3)
    assert method.codes == "soft"
    assert (optim.optimizer, optim.weight_decay, optim.momentum) == ("lars", 1e-6, 0.9)
    assert config.seed == 31
    assert config.precision == "16-mixed"
    assert config.sync_batchnorm
    assert config.views.num_targets == 2
    assert config.views.mean == (0.485, 0.456, 0.406)
    assert config.views.std == (0.228, 0.224, 0.225)
    for group in config.views.groups:
        augment = group.augment
        assert (augment.flip, augment.jitter, augment.grey, augment.blur) == (0.5, 0.8, 0.2, 0.5)
        assert (augment.brightness, augment.contrast, augment.saturation) == (0.8, 0.8, 0.8)
        assert (augment.hue, augment.blur_radius, augment.solarise) == (0.2, (0.1, 2.0), 0.0)
        assert group.ratio == (3 / 4, 4 / 3)


def test_what_is_known_of_the_widest() -> None:
    config = make_config("swav-r50w5-400ep")
    assert config.backbone.name == "resnet50w5"
    assert config.optim.batch_size == 128 * 12
    assert (config.method.queue_length, config.method.queue_start_epoch) == (1536, 0)
    assert not config.method.head.batchnorm
    assert config.views.description == "2x224,4x96"
    assert config.epochs == 400


def test_networks_start_with_full_residual_branches_as_in_the_reference() -> None:
    network = make_config("swav-r50-100ep").backbone.build(3)
    last = [weight for name, weight in network.named_parameters() if name.endswith("bn3.weight")]
    assert len(last) == 16
    assert all((weight == 1).all() for weight in last)
