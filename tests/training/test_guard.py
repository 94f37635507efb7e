"""The guard: its rule, and that a run that made things worse says so everywhere."""

from dataclasses import replace

import pytest

from swav.evals.label_free import Measures
from swav.training.guard import decide

START = Measures(effective_rank=50.0, agreement=0.5, stability=0.6, part_retrieval=0.3)


@pytest.mark.parametrize(
    ("changes", "overlap", "start_is_trained", "winner"),
    [
        ({}, 1.0, True, "trained"),
        ({"agreement": 0.6, "stability": 0.7, "part_retrieval": 0.4}, 0.1, True, "trained"),
        ({"agreement": 0.6}, 0.1, True, "start"),
        ({"agreement": 0.6}, 0.1, False, "trained"),
        ({"agreement": 0.4}, 0.9, True, "start"),
        ({"agreement": 0.4}, 0.9, False, "start"),
        ({"stability": 0.5}, 0.9, True, "start"),
        ({"part_retrieval": 0.2}, 0.9, True, "start"),
        ({"effective_rank": 90.0, "agreement": 0.3}, 0.9, True, "start"),
    ],
)
def test_the_trained_network_loses_if_one_measure_is_worse(
    changes: dict[str, float], overlap: float, start_is_trained: bool, winner: str
) -> None:
    trained = replace(START, **changes)
    found, reason = decide(START, trained, overlap, start_is_trained=start_is_trained)
    assert found == winner
    assert reason.endswith(".")
