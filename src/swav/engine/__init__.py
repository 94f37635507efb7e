"""The engine: the loop, its clock, the optimiser, launch, and the watch for divergence."""

from swav.data.batch import Batch
from swav.engine.loop import due, fit
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts

__all__ = [
    "Batch",
    "Clock",
    "Objective",
    "ObjectiveConfig",
    "StepOutput",
    "TrainingFacts",
    "due",
    "fit",
]
