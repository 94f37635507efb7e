"""The studies of the SwAV paper, as grids around any recipe that trains SwAV.

A study is a function from the recipe's config to the values of options of ``swav train``; what the
paper found by it is in docs/ablations.md. Where the paper's values are of ImageNet (3,000 to
100,000 prototypes), these keep their proportions to the recipe.
"""

from collections.abc import Callable, Mapping

from swav.config import UnknownNameError, UsageError
from swav.methods import SwAVConfig
from swav.recipes.train_config import TrainConfig

Grid = Mapping[str, tuple[str, ...]]
"""Values, as they are typed, by the option of ``swav train`` that takes them."""
NEVER = 1_000_000_000
"""Steps that no run of a study has."""
SMALL_BATCH = 32
QUEUED_BATCHES = (0, 4, 15)
"""Of the paper's run with batch 256 the queue holds 15 batches."""


def prototypes(config: TrainConfig) -> Grid:
    """Vary the number of prototypes: a quarter of the recipe's, the recipe's, 4 and 16 times."""
    number = _swav(config).num_prototypes[0]
    return _grid("method.num-prototypes", max(2, number // 4), number, 4 * number, 16 * number)


def sinkhorn_iterations(config: TrainConfig) -> Grid:
    """Vary the rounds of Sinkhorn-Knopp: 1, 3, 10."""
    _swav(config)
    return _grid("method.iterations", 1, 3, 10)


def codes(config: TrainConfig) -> Grid:
    """Compare soft codes with hard ones."""
    _swav(config)
    return _grid("method.codes", "soft", "hard")


def fixed_prototypes(config: TrainConfig) -> Grid:
    """Compare prototypes that learn (after as many steps as in the recipe) with fixed random ones.

    Fixed ones are frozen for more steps than there are.
    """
    return _grid("method.freeze-steps", _swav(config).freeze_steps, NEVER)


def epsilon(config: TrainConfig) -> Grid:
    """Vary the entropy of the codes: epsilon 0.01, 0.02, 0.05 (the paper's), 0.1."""
    _swav(config)
    return _grid("method.epsilon", 0.01, 0.02, 0.05, 0.1)


def queue(config: TrainConfig) -> Grid:
    """Vary the queue at a batch of 32: none, 4 batches, 15 batches (the paper's, of 256)."""
    _swav(config)
    lengths = (batches * SMALL_BATCH for batches in QUEUED_BATCHES)
    return _grid("optim.batch-size", SMALL_BATCH) | _grid("method.queue-length", *lengths)


def small_crops(config: TrainConfig) -> Grid:
    """Vary number and size of small crops: none, 2, 4, 6 of the recipe's size, 4 half as large.

    The side of the last ones is three quarters of the others' (0.75 squared is about a half).

    Raises:
        ValueError: if the recipe has no small crops.
    """
    if len(config.views.groups) < 2:
        raise UsageError(
            f"the study of small crops needs some: this recipe has {config.views.description}"
        )
    large, other = config.views.groups[:2]
    small = _side(other.size)
    smaller = _side((round(0.75 * other.size[0]), round(0.75 * other.size[1])))
    first = f"{large.count}x{_side(large.size)}"
    rest = (f"2x{small}", f"4x{small}", f"6x{small}", f"4x{smaller}")
    return _grid("crops", first, *(f"{first},{each}" for each in rest))


def epochs(config: TrainConfig) -> Grid:
    """Vary the epochs: a quarter of the recipe's, a half, all, twice as many."""
    number = config.epochs
    fewer = {max(1, number // 4), max(1, number // 2)} - {number}
    return _grid("epochs", *sorted(fewer), number, 2 * number)


STUDIES: Mapping[str, Callable[[TrainConfig], Grid]] = {
    study.__name__.replace("_", "-"): study
    for study in (
        prototypes,
        sinkhorn_iterations,
        codes,
        fixed_prototypes,
        epsilon,
        queue,
        small_crops,
        epochs,
    )
}
"""Every study, by the name that ``--study`` takes."""


def study_grid(name: str, config: TrainConfig) -> Grid:
    """Return the grid of a study around a config; ``_`` stands for ``-``.

    Raises:
        ValueError: if there is no such study, or it is of another method.
    """
    name = name.replace("_", "-")
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    return STUDIES[name](config)


def _side(size: tuple[int, int]) -> str:
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def _grid(option: str, *values: object) -> dict[str, tuple[str, ...]]:
    return {option: tuple(map(str, values))}


def _swav(config: TrainConfig) -> SwAVConfig:
    if not isinstance(config.method, SwAVConfig):
        raise UsageError(f"this study is of swav, and the recipe trains {config.method.name}")
    return config.method
