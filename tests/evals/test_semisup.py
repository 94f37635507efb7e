"""Fine-tuning on few labels: known answers, lists that are fixed, and its own definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from swav.data.eval_transform import EvalTransform
from swav.data.sources.listing import PackedNames
from swav.data.sources.open import from_arrays
from swav.evals import SemisupConfig, semisup
from swav.evals.harness.eval_data import EvalData
from swav.evals.harness.finetune import FineTuneConfig, finetune, num_right
from swav.evals.harness.subject import Subject

QUICK = FineTuneConfig(trunk_rate=0.05, head_rate=0.5, batch_size=16, epochs=1, min_steps=30)
SIDE = 8
TRANSFORM = EvalTransform(input_size=(3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)
COLOURS = torch.tensor([[230, 30, 30], [30, 230, 30], [30, 30, 230]])


class TinyNetwork(nn.Module):
    """Eight features of a picture, through BatchNorm and dropout of nothing."""

    num_features = 8

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.convolution = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, pictures):
        return self.norm(self.convolution(pictures)).relu().mean(dim=(2, 3))


def coloured(num_images: int, *, seed: int = 0, shuffled: bool = False):
    """Return pictures whose class is their colour, or has nothing to do with it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 3
    noise = torch.randint(-25, 25, (num_images, 3, SIDE, SIDE), generator=generator)
    pixels = (COLOURS[labels][:, :, None, None] + noise).byte()
    if shuffled:
        labels = labels[torch.randperm(num_images, generator=generator)]
    return from_arrays(pixels, labels.numpy())


def test_colours_are_learnt_from_one_picture_of_each_class():
    config = SemisupConfig(fractions=(0.5,), per_class=(1,), training=QUICK)
    result = semisup.run(config, TinyNetwork(), TRANSFORM, coloured(60), coloured(30, seed=1))
    assert result.metrics == {"top1_50pct": 1, "top1_1each": 1}
    assert result.counts == {"score": 30, "classes": 3, "fit_50pct": 30, "fit_1each": 3}


def test_shuffled_labels_are_at_chance():
    config = SemisupConfig(fractions=(1.0,), training=QUICK)
    score = coloured(600, seed=1, shuffled=True)
    result = semisup.run(config, TinyNetwork(), TRANSFORM, coloured(60), score)
    assert 0.25 < result.metrics["top1_100pct"] < 0.42


def test_without_a_score_set_a_share_of_each_class_is_held_out():
    config = SemisupConfig(fractions=(1.0,), training=QUICK)
    result = semisup.run(config, TinyNetwork(), TRANSFORM, coloured(60))
    assert result.counts == {"score": 12, "classes": 3, "fit_100pct": 48}
    assert result.metrics["top1_100pct"] == 1


def test_the_network_that_was_given_is_left_as_it_was_and_the_run_repeats():
    network = TinyNetwork()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = SemisupConfig(fractions=(0.5,), training=replace(QUICK, min_steps=3))
    first, again = (
        semisup.run(config, network, TRANSFORM, coloured(30, shuffled=True)).to_json()
        for _ in range(2)
    )
    assert first == again
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_untrained_network_is_trained_on_the_same_list_under_the_same_protocol():
    data = EvalData(coloured(30), coloured(30, seed=1), "fit", "score")
    config = SemisupConfig(fractions=(0.2,), training=replace(QUICK, min_steps=2))
    trained, scratch = (
        config.evaluate(Subject(data, TinyNetwork(seed), TRANSFORM)) for seed in (0, 1)
    )
    assert "top1_20pct" in trained.with_baseline("random", scratch).baselines["random"]
    with pytest.raises(ValueError, match="pixels have none"):
        config.evaluate(Subject(data))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_gives_its_share_and_smaller_lists_are_part_of_larger(seed):
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    few, more, five = (
        semisup.choose(labels, fraction=fraction, number=number, seed=seed)
        for fraction, number in ((0.1, None), (0.5, None), (None, 5))
    )
    assert np.bincount(labels[few]).tolist() == [10, 4, 1]
    assert np.bincount(labels[five]).tolist() == [5, 5, 3]
    assert set(few) <= set(more)
    other = semisup.choose(labels, fraction=0.1, number=None, seed=seed + 7)
    assert set(other) != set(few)


def test_lists_are_written_once_and_read_ever_after(tmp_path):
    config = SemisupConfig(
        fractions=(0.2,), lists=str(tmp_path / "lists"), training=replace(QUICK, min_steps=2)
    )
    pictures = coloured(30)
    first = semisup.run(config, TinyNetwork(), TRANSFORM, pictures, pictures)
    path = tmp_path / "lists" / "20pct-seed0.txt"
    rows = semisup.choose(pictures.labels, fraction=0.2, number=None, seed=0)
    assert path.read_text().split() == [pictures.names[row] for row in rows.tolist()]
    path.write_text("".join(f"{pictures.names[row]}\n" for row in (4, 3, 8)))
    second = semisup.run(config, TinyNetwork(), TRANSFORM, pictures, pictures)
    assert second.counts["fit_20pct"] == 3
    assert second.protocol["lists"] != first.protocol["lists"]


def test_a_list_may_leave_folders_out_but_not_name_what_is_not_there(tmp_path):
    pictures = coloured(4)
    pictures.names = PackedNames(["a/1.png", "b/2.png", "a/3.png", "b/3.png"])
    path = tmp_path / "list.txt"
    for text, rows in (("2.png\na/1.png\n", [0, 1]), ("b/3.png", [3])):
        path.write_text(text)
        assert semisup.read_list(path, pictures).tolist() == rows
    for text, complaint in (("3.png", "is 2 pictures"), ("4.png", "no picture"), ("\n", "lists")):
        path.write_text(text)
        with pytest.raises(ValueError, match=complaint):
            semisup.read_list(path, pictures)
    with pytest.raises(ValueError, match="line break"):
        semisup.write_list(path, ["a\nb.png"])


def test_one_step_is_sgd_with_a_rate_for_each_part():
    """With one batch, no crop to speak of and no momentum yet, the step is rate x gradient."""
    config = FineTuneConfig(
        trunk_rate=0.03, head_rate=0.7, epochs=1, batch_size=12, crop_area=(1.0, 1.0), flip=0.0
    )
    pictures, network = coloured(12), TinyNetwork()
    trained = finetune(config, network, pictures, TRANSFORM, num_classes=3, seed=5)
    head = nn.Linear(8, 3)
    torch.nn.init.normal_(head.weight, std=0.01, generator=torch.Generator().manual_seed(5))
    torch.nn.init.zeros_(head.bias)
    views = TRANSFORM([pictures[row] for row in range(12)])
    logits = head(network.train()(views))
    labels = torch.from_numpy(pictures.labels)
    loss = -logits.log_softmax(dim=1)[torch.arange(12), labels].mean()
    loss.backward()
    for mine, theirs, rate in (
        (network.convolution.weight, trained.trunk.convolution.weight, 0.03),
        (head.weight, trained.head.weight, 0.7),
        (head.bias, trained.head.bias, 0.7),
    ):
        torch.testing.assert_close(theirs.data, mine.data - rate * mine.grad, atol=1e-5, rtol=1e-4)


def test_a_frozen_network_keeps_weights_and_statistics():
    network = TinyNetwork()
    config = replace(QUICK, trunk_rate=0.0, min_steps=5)
    trained = finetune(config, network, coloured(30), TRANSFORM, num_classes=3, seed=0)
    for name, value in trained.trunk.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    assert not torch.equal(trained.head.bias, torch.zeros(3))


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    network, pictures = TinyNetwork(), coloured(30, shuffled=True)
    config = replace(QUICK, min_steps=6)

    def trained(folder):
        made = finetune(config, network, pictures, TRANSFORM, num_classes=3, seed=0, folder=folder)
        return made.state_dict()

    expected = trained(None)
    loss = nn.functional.cross_entropy
    calls = []

    def stops_at_the_fourth(*given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr("swav.evals.harness.finetune.F.cross_entropy", stops_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path)
    resumed = trained(tmp_path)
    assert len(calls) == 4 + 3
    for name, value in resumed.items():
        assert torch.equal(value, expected[name])


def test_top5_is_counted_among_more_than_five_classes():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (40, 3, SIDE, SIDE), generator=generator).byte()
    pictures = from_arrays(pixels, np.arange(40) % 8)
    config = replace(QUICK, min_steps=1)
    trained = finetune(config, TinyNetwork(), pictures, TRANSFORM, num_classes=8, seed=0)
    right, num_scored = num_right(trained, pictures, TRANSFORM)
    with torch.no_grad():
        logits = trained.classifier(TRANSFORM([pictures[row] for row in range(40)]))
    ranks = (logits > logits.gather(1, torch.arange(40)[:, None] % 8)).sum(dim=1)
    assert num_scored == 40
    assert right == {"top1": int((ranks < 1).sum()), "top5": int((ranks < 5).sum())}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: SemisupConfig(fractions=(1.5,)), "fractions"),
        (lambda: SemisupConfig(per_class=(0,)), "per_class"),
        (lambda: SemisupConfig(held_out=0.0), "held_out"),
        (lambda: FineTuneConfig(head_rate=0.0), "head_rate"),
        (lambda: FineTuneConfig(batch_size=1), "batch_size"),
        (lambda: FineTuneConfig(trunk_rate=-1.0), "trunk_rate"),
        (lambda: FineTuneConfig(drops=(12.0,)), "drops"),
        (
            lambda: semisup.run(SemisupConfig(), TinyNetwork(), TRANSFORM, from_arrays(
                torch.zeros(4, 3, 8, 8, dtype=torch.uint8))),
            "needs labels",
        ),
        (
            lambda: semisup.run(SemisupConfig(), TinyNetwork(), TRANSFORM, from_arrays(
                torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 0, 0, 0])),
            "two classes",
        ),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        wrong()


def test_one_and_ten_per_cent_unless_something_else_is_asked_for():
    assert SemisupConfig().shares == (0.01, 0.1)
    assert SemisupConfig(per_class=(4,)).shares == ()
    assert SemisupConfig(fractions=(0.5,), per_class=(4,)).shares == (0.5,)
