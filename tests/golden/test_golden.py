"""The first 20 losses of a tiny run of each method are what they were.

``pytest tests/golden --update-golden`` writes them anew; the commit says why they changed.
"""

import json
from pathlib import Path

import pytest
import torch
from tiny import BATCH_SIZE, METHOD_CLASSES, TINY_METHODS, tiny_config, tiny_facts, tiny_pictures

from swav.data.loader import StepViews
from swav.engine import Clock, fit

STEPS = 20
CLOCK = Clock(step=0, epoch=0, steps_per_epoch=4, total_steps=STEPS, images=0, warmup_steps=4)

# both divide by the deviations of 16 rows, so that what another processor rounds grows in 20 steps:
# one bit of a view is 1e-2 for Barlow Twins, and VICReg was seen 2e-4 off on an AMD EPYC
LOOSE = {"barlow": 5e-2, "vicreg": 1e-3}


def losses_of(method: str) -> list[float]:
    config = tiny_config(
        method=next(TINY_METHODS[cls] for cls in METHOD_CLASSES if cls.name == method)
    )
    torch.manual_seed(0)
    backbone = config.backbone.build(3)
    objective = config.method.build(backbone, tiny_facts(backbone))
    views = StepViews(
        tiny_pictures(),
        config.views,
        global_batch=BATCH_SIZE,
        seed=0,
        pretext=config.method.pretext,
    )
    objective.prepare(views.batch(number) for number in range(4))
    steps = fit(
        objective,
        (views.batch(number) for number in range(STEPS)),
        config.optim.build(objective),
        CLOCK,
        learning_rate=config.optim.learning_rate_at,
    )
    return [float(output.loss) for _, output in steps]


@pytest.mark.parametrize("method", [cls.name for cls in METHOD_CLASSES])
def test_losses_are_what_they_were(method: str, request: pytest.FixtureRequest) -> None:
    path = Path(__file__).with_name(f"{method}.json")
    losses = losses_of(method)
    if request.config.getoption("--update-golden"):
        path.write_text(json.dumps(losses, indent=1) + "\n")
    golden = json.loads(path.read_text())
    rtol = LOOSE.get(method, 1e-4)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(golden), rtol=rtol, atol=0)
