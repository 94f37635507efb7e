"""Numbers that no training can have are refused before pictures or a network are opened."""

import pytest

from swav import cli
from swav.data.sources.open import SourceConfig


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epochs", "-1", "epochs -1 is not among the whole numbers in [1, 1e9]: give --epochs 1"),
        ("--epochs", "0", "epochs 0 is not among the whole numbers in [1, 1e9]: give --epochs 1"),
        ("--optim.batch-size", "0", "batch_size 0 must be at least 2"),
        ("--optim.batch-size", "1", "give --optim.batch-size 2 or more"),
        ("--optim.accumulate", "0", "give --optim.batch-size 2 or more, and --optim.accumulate 1"),
        ("--optim.learning-rate", "0", "learning_rate 0.0 must be positive"),
    ],
)
def test_it_is_refused_with_a_remedy_before_anything_is_opened(
    option: str,
    value: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(SourceConfig, "build", pytest.fail)
    monkeypatch.setattr("timm.create_model", pytest.fail)
    assert cli.main(["train", "nowhere", "--init", "lite0", option, value]) == cli.USAGE
    assert said in capsys.readouterr().err
