"""The engine: the loop, its clock, the optimiser, checkpoints and the watch."""

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
