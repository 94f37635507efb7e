"""A probe at each stage, of networks whose stages are known."""

import pytest
import torch
from torch import nn

from swav.data.eval_transform import EvalTransform
from swav.evals import LayersConfig, LinearConfig, Subject, layers, linear
from swav.evals.harness.eval_data import EvalData
from swav.nn.backbones import BackboneConfig

TRANSFORM = EvalTransform(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.2,) * 3)
PROBE = LinearConfig(penalties=(0.01,))


class TwoStages(nn.Module):
    """Its first map is the picture, its second the same at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.num_features = 3

    def forward(self, x):
        return x.mean(dim=(2, 3)) * self.scale

    def forward_intermediates(self, x, *, intermediates_only, output_fmt):
        assert intermediates_only
        assert output_fmt == "NCHW"
        return [x * self.scale, nn.functional.avg_pool2d(x, 2) * self.scale]


def subject_of(made, network, num_images=40):
    pictures = made.pictures_of(num_images, size=16)
    return Subject(EvalData(pictures, None, "made", "made"), network, TRANSFORM)


def test_stages_are_the_networks_maps_on_the_finest_grid_that_fits(made):
    subject = subject_of(made, TwoStages())
    inputs = TRANSFORM([subject.data.train[row] for row in range(40)])
    found = layers.stage_features(subject.backbone, subject.data.train, TRANSFORM, max_features=48)
    for stage in found:
        expected = nn.functional.avg_pool2d(inputs, 4).flatten(1)  # 3 channels x 4 x 4 cells
        torch.testing.assert_close(stage.values, expected)
        assert stage.labels.tolist() == subject.data.train.labels.tolist()
    assert layers.pooled(inputs, 2).shape == (40, 3)
    assert layers.pooled(inputs, 10**6).shape == (40, 3 * 16 * 16)


def test_each_stage_is_probed_as_linear_probes_features(made):
    subject = subject_of(made, TwoStages())
    config = LayersConfig(max_features=48, probe=PROBE)
    result = config.evaluate(subject)
    assert list(result.metrics) == ["stage1", "stage2", "top1"]
    first = layers.stage_features(subject.backbone, subject.data.train, TRANSFORM, max_features=48)
    expected = linear.run(PROBE, first[0])
    assert result.metrics["stage1"] == expected.metrics["top1"]
    assert result.intervals["stage1"] == expected.intervals["top1"]
    assert result.metrics["top1"] == linear.run(PROBE, subject.train_features).metrics["top1"]
    pixels = Subject(subject.data)
    assert list(config.evaluate(pixels).metrics) == ["top1"]
    assert result.with_baseline("pixels", config.evaluate(pixels)).baselines["pixels"]


def test_features_that_lose_the_class_show_it_at_the_stage_that_loses_it(made):
    good, bad = made.separable(200), made.meaningless(200)
    bad = bad._replace(labels=good.labels)
    result = layers.run(LayersConfig(probe=PROBE), [good, bad], None, bad)
    assert result.metrics["stage1"] == 1
    assert result.metrics["stage2"] < 0.5
    assert result.metrics["top1"] == result.metrics["stage2"]


@pytest.mark.parametrize(
    ("backbone", "num_stages"),
    [
        (BackboneConfig(name="resnet10t", args={"channels": [8, 8, 16, 16], "stem_width": 8}), 5),
        (BackboneConfig(name="cifar_resnet18"), 5),
        (
            BackboneConfig(
                name="convnext_atto",
                args={
                    "depths": [1, 1, 1, 1],
                    "dims": [8, 8, 16, 16],
                    "patch_size": 2,
                    "output_stride": 8,
                },
            ),
            4,
        ),
        (
            BackboneConfig(
                name="vit_tiny_patch16_224",
                args={"img_size": 16, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3},
            ),
            3,
        ),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_timms_networks_and_ours_give_their_stages(made, backbone, num_stages):
    network = backbone.build().eval()
    subject = subject_of(made, network, num_images=4)
    found = layers.stage_features(network, subject.data.train, TRANSFORM, max_features=64)
    assert len(found) == num_stages
    if backbone.name == "resnet10t":  # its output is the mean of its last map
        inputs = TRANSFORM([subject.data.train[row] for row in range(4)])
        (last,) = layers.stage_features(network, subject.data.train, TRANSFORM, max_features=16)[
            -1:
        ]
        torch.testing.assert_close(last.values, network(inputs).detach())


def test_a_network_without_stages_is_refused_with_the_remedy(made):
    with pytest.raises(ValueError, match="forward_intermediates"):
        layers.stage_features(
            nn.Linear(1, 1),
            made.pictures_of(4),
            TRANSFORM,
            max_features=8,
        )
