"""Detectors of torchvision on top of any backbone that shows its stages."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors."""
POOLED = 7
"""Side of the features that a box is judged by."""
_PROBE = 128
"""Side of the picture that shows how coarse the stages are."""

DetectorName = Literal["faster-rcnn", "retinanet"]


@runtime_checkable
class Staged(Protocol):
    """A network whose forward pass can show its stages, as every timm model's."""

    def forward_intermediates(self, x: Tensor, *, intermediates_only: bool) -> list[Tensor]:
        """Return the feature map at the end of each stage."""


class Stage(NamedTuple):
    """A feature map of a backbone."""

    number: int
    """In what ``forward_intermediates`` returns."""
    channels: int
    stride: int
    """Pixels of the picture to one of the map."""


def stages_of(backbone: nn.Module, *, channels: int) -> list[Stage]:
    """Return the last feature map of each resolution, the finest first, as they really are.

    Raises:
        ValueError: if the backbone does not show its stages.
    """
    if not isinstance(backbone, Staged):
        raise ValueError(
            f"{type(backbone).__name__} does not show its stages (forward_intermediates): "
            "detection needs a backbone of timm, such as resnet18 or convnext_atto"
        )
    weight = next(backbone.parameters())
    # a pass shows what the maps really are, also of a network with a stem of its own
    probe = torch.zeros(1, channels, _PROBE, _PROBE, device=weight.device)
    # BatchNorm would learn from an empty picture in training mode
    was_training = backbone.training
    with torch.no_grad():
        maps = backbone.eval().forward_intermediates(probe, intermediates_only=True)
    backbone.train(was_training)
    last = {_PROBE // stage.shape[-1]: (row, stage.shape[1]) for row, stage in enumerate(maps)}
    return [Stage(row, width, stride) for stride, (row, width) in sorted(last.items())]


@final
class Pyramid(nn.Module):
    """A backbone and the feature pyramid on its stages (Lin et al., 2017, arXiv 1612.03144)."""

    def __init__(
        self, trunk: nn.Module, stages: Sequence[Stage], *, dim: int, extra: nn.Module
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.out_channels = dim
        self._stages = tuple(stages)
        widths = [stage.channels for stage in stages]
        self.fpn = FeaturePyramidNetwork(widths, dim, extra_blocks=extra)

    def forward(self, pictures: Float[Tensor, "batch channels height width"]) -> dict[str, Tensor]:
        """Return the maps of the pyramid, the finest first."""
        assert isinstance(self.trunk, Staged)
        maps = self.trunk.forward_intermediates(pictures, intermediates_only=True)
        named = {str(stage.stride): maps[stage.number] for stage in self._stages}
        levels: dict[str, Tensor] = self.fpn(named)
        return levels


def build_detector(
    name: DetectorName,
    backbone: nn.Module,
    *,
    num_classes: int,
    sizes: Sequence[int],
    max_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    pyramid_dim: int = 256,
    head_dim: int = 1024,
    boxes_per_picture: int = 512,
) -> nn.Module:
    """Return a detector of torchvision around ``backbone`` itself; its classes count from one.

    Args:
        name: which one.
        backbone: shows its stages.
        num_classes: without the background.
        sizes: shorter sides that a picture is resized to: any of them in training, the last one
            otherwise.
        max_size: of the longer side.
        mean: of the channels.
        std: of the channels.
        pyramid_dim: channels of each level.
        head_dim: hidden width of the head that judges boxes (Faster R-CNN).
        boxes_per_picture: that this head learns from (Faster R-CNN).
    """
    # no finer map than a quarter: it would take much memory (Lin et al., 2017, sec. 3)
    stages = [stage for stage in stages_of(backbone, channels=len(mean)) if stage.stride >= 4]
    if not stages:
        raise ValueError(
            "a detector needs a stage at a quarter of the picture's size or less, and this "
            "backbone has none: take one that reduces more, such as resnet18"
        )
    options: dict[str, Any] = {
        "min_size": tuple(sizes),
        "max_size": max_size,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    if name == "retinanet":
        return _retinanet(backbone, stages, num_classes, pyramid_dim, options)
    strides = [stage.stride for stage in stages]
    # 8 strides wide, as the pyramid of the paper has it: 32 pixels at stride 4, 512 at 64
    anchors = [(8 * stride,) for stride in [*strides, 2 * strides[-1]]]
    model = FasterRCNN(
        Pyramid(backbone, stages, dim=pyramid_dim, extra=LastLevelMaxPool()),
        rpn_anchor_generator=AnchorGenerator(tuple(anchors), (RATIOS,) * len(anchors)),
        box_roi_pool=MultiScaleRoIAlign([str(stride) for stride in strides], POOLED, 2),
        box_head=TwoMLPHead(pyramid_dim * POOLED**2, head_dim),
        box_predictor=FastRCNNPredictor(head_dim, num_classes + 1),
        box_batch_size_per_image=boxes_per_picture,
        **options,
    )
    assert isinstance(model, nn.Module)
    return model


def _retinanet(
    backbone: nn.Module,
    stages: Sequence[Stage],
    num_classes: int,
    pyramid_dim: int,
    options: dict[str, Any],
) -> nn.Module:
    """Return RetinaNet (Lin et al., 2017, arXiv 1708.02002) on the stages from stride 8 on."""
    # RetinaNet leaves out stride 4 for its cost (Lin et al., 2017, sec. 4)
    coarse = [stage for stage in stages if stage.stride >= 8]
    if not coarse:
        strides = [stage.stride for stage in stages]
        raise ValueError(
            f"retinanet needs a stage of stride 8 or more, not {strides}: "
            "take faster-rcnn, or a backbone that reduces the picture further"
        )
    strides = [stage.stride for stage in coarse]
    # two levels more for large objects: P6 and P7 of the paper
    strides += [2 * strides[-1], 4 * strides[-1]]
    anchors = [
        tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides
    ]
    extra = LastLevelP6P7(pyramid_dim, pyramid_dim)
    model = RetinaNet(
        Pyramid(backbone, coarse, dim=pyramid_dim, extra=extra),
        num_classes + 1,
        anchor_generator=AnchorGenerator(tuple(anchors), (RATIOS,) * len(anchors)),
        **options,
    )
    assert isinstance(model, nn.Module)
    return model
