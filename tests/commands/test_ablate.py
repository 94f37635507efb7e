"""``swav ablate``: its keys and values are the options of ``swav train``, and so are its errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import write_pictures

from swav import cli
from swav.commands import ablate as command
from swav.report.ablation import Summary
from swav.training import ablation
from swav.training.ablation import Variant


class Asked:
    """Stands in for the trainings and remembers what was asked for."""

    variants: Sequence[Variant] = ()
    settings: dict[str, Any] = {}  # noqa: RUF012

    def __call__(self, variants: Sequence[Variant], **settings: Any) -> Summary:
        self.variants, self.settings = variants, settings
        return Summary(keys=(), groups=())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(ablation, "ablate", found)
    monkeypatch.setattr(command, "print_ablation", lambda *_, **__: None)
    return found


def test_every_combination_is_a_training_of_the_same_words(asked: Asked) -> None:
    words = ["ablate", "digits", "--grid", "method.epsilon=0.02;0.05", "--epochs", "7"]
    words += ["--grid", "crops=2x16;2x16,4x12", "--seeds", "3,1", "--out", "there"]
    assert cli.main(words) == 0
    found = [
        (each.settings, each.config.method.epsilon, each.config.views.description)  # type: ignore[union-attr]
        for each in asked.variants
    ]
    assert [each[1:] for each in found] == [
        *((0.02, "2x16"), (0.02, "2x16,4x12")),
        *((0.05, "2x16"), (0.05, "2x16,4x12")),
    ]
    assert found[1][0] == {"method.epsilon": "0.02", "crops": "2x16,4x12"}
    assert {each.config.epochs for each in asked.variants} == {7}
    assert asked.settings == {"seeds": [3, 1], "out": Path("there"), "seconds": None}


def test_values_of_several_words_and_flags(asked: Asked) -> None:
    words = ["ablate", "digits", "--out", "there", "--at-equal", "seconds:90"]
    words += ["--grid", "method.num_prototypes=30;30 40", "--grid", "backbone.args.layers=[1,1]"]
    assert cli.main([*words, "--grid", "method.head.batchnorm=true;false"]) == 0
    assert [each.config.method.num_prototypes for each in asked.variants[::2]] == [  # type: ignore[union-attr]
        *((30,), (30, 40)),
    ]
    assert [each.config.method.head.batchnorm for each in asked.variants[:2]] == [True, False]  # type: ignore[union-attr]
    assert asked.variants[0].config.backbone.args["layers"] == [1, 1]
    assert asked.settings["seconds"] == 90
    assert asked.settings["seeds"] == [0, 1]


def test_a_study_is_around_what_is_given(asked: Asked) -> None:
    words = ["ablate", "digits", "--out", "there", "--study", "epochs", "--epochs", "12"]
    assert cli.main([*words, "--grid", "method.codes=soft;hard"]) == 0
    assert [each.config.epochs for each in asked.variants[::2]] == [3, 6, 12, 24]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "method.epsilonn=0.1;0.2"], "Perhaps you meant: --method.epsilon"),
        (["--grid", "method.epsilon=0.1,0.2"], "--method.epsilon 0.1,0.2 (; separates values)"),
        (["--grid", "method.epsilon=0.1;-3"], "epsilon -3.0 must be positive"),
        (["--grid", "method.epsilon"], "write 'KEY=VALUE;VALUE'"),
        (["--grid", "method.epsilon=0.1;"], "write 'KEY=VALUE;VALUE'"),
        (["--grid", "seed=0;1"], "seed cannot be varied (--seeds has seeds)"),
        (["--grid", "epochs=1;2", "--grid", "epochs=3"], "epochs is given twice"),
        (["--grid", "epochs=1;2", "--epochs", "3"], "--epochs is both varied and given"),
        (["--study", "queu"], "Did you mean 'queue'?"),
        ([], "nothing is varied: give --grid"),
        (["--grid", "epochs=1;2", "--seed", "3"], "here it is --seeds"),
        (["--grid", "epochs=1;2", "--seeds", "a"], "--seeds a: give whole numbers"),
        (["--grid", "epochs=1;2", "--at-equal", "minutes:1"], "it is epochs, or seconds:N"),
        (["--grid", "epochs=1;2", "--epoch", "3"], "--epoch"),
    ],
)
def test_a_mistake_is_refused_before_any_run(
    words: list[str], message: str, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ablate", "digits", "--out", "there", *words]) == 2
    assert message in capsys.readouterr().err
    assert not asked.variants


def test_a_folder_is_needed(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", "digits", "--study", "codes"]) == 2
    assert "name it with --out" in capsys.readouterr().err


def test_a_dry_run_lists_the_runs(
    tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--grid", "epochs=2;5", "--seeds", "0", "--out", str(tmp_path / "there"), "--dry-run"]
    assert cli.main(["ablate", write_pictures(tmp_path), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["epochs=2,seed=0: 2 epochs", "epochs=5,seed=0: 5 epochs", "2 runs"]
    assert not asked.variants
    assert not (tmp_path / "there").exists()
