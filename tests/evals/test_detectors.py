"""Stages as they are, and detectors that stand on them."""

import pytest
import torch
from tiny import WITH_BATCHNORM, WITHOUT_BATCHNORM

from swav.evals.detectors import Stage, build_detector, stages_of
from swav.nn.backbones import BackboneConfig

GIVEN = {"num_classes": 2, "sizes": (64,), "max_size": 96, "mean": (0.5,) * 3, "std": (0.2,) * 3}


@pytest.mark.parametrize(
    ("config", "stages"),
    [
        (WITH_BATCHNORM, [(0, 16, 2), (1, 8, 4), (2, 8, 8), (3, 16, 16), (4, 16, 32)]),
        (WITHOUT_BATCHNORM, [(0, 8, 4), (3, 16, 8)]),
        (
            BackboneConfig(name="cifar_resnet18"),
            [(1, 64, 1), (2, 128, 2), (3, 256, 4), (4, 512, 8)],
        ),
    ],
)
def test_stages_are_measured_not_believed(config, stages):
    backbone = config.build(3).train()
    assert stages_of(backbone, channels=3) == [Stage(*stage) for stage in stages]
    assert backbone.training


@pytest.mark.parametrize("config", [WITH_BATCHNORM, WITHOUT_BATCHNORM])
@pytest.mark.parametrize("name", ["faster-rcnn", "retinanet"])
def test_levels_stand_on_the_weights_given_with_anchors_that_grow_with_them(config, name):
    backbone = config.build(3)
    detector = build_detector(name, backbone, pyramid_dim=8, **GIVEN).eval()
    assert detector.get_submodule("backbone.trunk") is backbone
    pictures = torch.rand(1, 3, 128, 128)
    levels = detector.get_submodule("backbone")(pictures)
    strides = [128 // level.shape[-1] for level in levels.values()]
    assert strides == sorted(set(strides))
    assert strides[0] == (8 if name == "retinanet" else 4)
    anchors = detector.get_submodule("rpn" if name == "faster-rcnn" else "anchor_generator")
    sizes = (anchors.anchor_generator if name == "faster-rcnn" else anchors).sizes
    assert [size[0] for size in sizes] == [
        (4 if name == "retinanet" else 8) * stride for stride in strides
    ]
    with torch.no_grad():
        (answer,) = detector([pictures[0]])
    assert set(answer) == {"boxes", "labels", "scores"}


def test_retinanet_says_when_a_network_is_too_fine_for_it():
    fine = BackboneConfig(name="cifar_resnet18").build(3)
    fine.layer4 = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"stride 8 or more, not \[4\]"):
        build_detector("retinanet", fine, **GIVEN)


def test_a_network_that_reduces_too_little_is_refused():
    fine = BackboneConfig(name="cifar_resnet18").build(3)
    fine.layer3 = fine.layer4 = torch.nn.Identity()
    with pytest.raises(ValueError, match="a quarter of the picture's size or less"):
        build_detector("faster-rcnn", fine, **GIVEN)
