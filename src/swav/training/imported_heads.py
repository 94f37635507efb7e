"""Which method has the projection head and the prototypes of a file, and how they fill it."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from swav.config import UnknownNameError, UsageError
from swav.engine import Objective
from swav.exchange.weights import COUNTER, ForeignWeights, few
from swav.methods import MethodConfig, SwAVConfig
from swav.methods.cluster_prediction import ClusterPredictionConfig
from swav.methods.projected import ProjectedConfig
from swav.nn.heads import HeadConfig
from swav.recipes.options import METHODS, with_method
from swav.recipes.train_config import TrainConfig

WITH_PROTOTYPES = ("swav", "deepcluster", "sela")
"""Methods of backbone, head and prototypes."""
WITHOUT_PROTOTYPES = ("simclr", "barlow", "vicreg")
"""Methods of backbone and head, with nothing else that would be untrained."""
HEADS = ("projector.", "prototypes.")
"""Where they are in an objective of these methods."""


def method_of(
    config: TrainConfig, foreign: ForeignWeights | None, name: str | None
) -> MethodConfig:
    """Return the settings of the method whose head and prototypes a file has.

    Args:
        config: of which they would be a part.
        foreign: what the file has; None for published weights of a backbone alone.
        name: of the method that was asked for; by default swav for prototypes of one head,
            deepcluster for those of several, simclr without any.

    Raises:
        ValueError: if the file does not have what that method consists of.
    """
    head = foreign.head if foreign else {}
    prototypes = foreign.prototypes if foreign and head else ()
    usual = "simclr" if not prototypes else "swav" if len(prototypes) == 1 else "deepcluster"
    name = name or usual
    _check_method(name, has_prototypes=bool(prototypes))
    method = with_method(config, name).method
    if isinstance(method, SwAVConfig | ClusterPredictionConfig):
        numbers = tuple(len(vectors) for vectors in prototypes)
        return replace(method, num_prototypes=numbers, head=head_config(head))
    assert isinstance(method, ProjectedConfig)
    return replace(method, head=head_config(head)) if head else method


def head_config(head: Mapping[str, Tensor]) -> HeadConfig:
    """Return the form of a projection head by its tensors, ``projector.0.weight`` and on."""
    linear = [value for key, value in head.items() if key.endswith("weight") and value.ndim == 2]
    last = next(reversed([key for key, value in head.items() if value is linear[-1]]))
    return HeadConfig(
        hidden_dim=len(linear[0]) if len(linear) > 1 else 0,
        embed_dim=len(linear[-1]),
        batchnorm=len(linear) == 1 or any(key.endswith("running_mean") for key in head),
        num_hidden=max(len(linear) - 1, 1),
        bias=f"{last.removesuffix('weight')}bias" in head,
    )


def fill_heads(objective: Objective, foreign: ForeignWeights) -> int:
    """Put the head and the prototypes of a file into its method; return how many tensors they are.

    Raises:
        ValueError: if a tensor of them is missing, or does not fit the backbone.
    """
    own = objective.state_dict()
    places = [key for key in own if key.startswith(HEADS)]
    vectors = enumerate(foreign.prototypes)
    theirs = {**foreign.head, **{f"prototypes.heads.{i}.weight": each for i, each in vectors}}
    given = {key: theirs[key] for key in places if key in theirs}
    wrong = [
        key
        for key in places
        if (key not in given and not key.endswith(COUNTER))
        or (key in given and given[key].shape != own[key].shape)
    ]
    if wrong:
        size = objective.encoder.num_features
        raise ValueError(
            f"the projection head or the prototypes of {foreign.source} are not whole, or do not "
            f"fit the {size} features of the backbone ({few(tuple(wrong))}): --backbone names the "
            "network that they are of"
        )
    objective.load_state_dict({**own, **given})
    return len(given)


def _check_method(name: str, *, has_prototypes: bool) -> None:
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    if name in WITHOUT_PROTOTYPES or (name in WITH_PROTOTYPES and has_prototypes):
        return
    if name in WITH_PROTOTYPES:
        raise UsageError(
            f"--method {name} has prototypes, and the file has none that stand behind a projection "
            "head; clusters of untrained ones would say nothing: leave out --method, and swav "
            "cluster makes k-means of the features"
        )
    fitting = (*WITH_PROTOTYPES, *WITHOUT_PROTOTYPES) if has_prototypes else WITHOUT_PROTOTYPES
    raise UsageError(
        f"--method {name} needs more than a backbone, a head and prototypes, which is all that "
        f"files are read for: use one of {', '.join(fitting)}"
    )
