"""A small detector and a small segmenter of torchvision's kinds, for the scenes in this folder.

Both are torchvision's own classes around a small backbone, so they are read and explained as torchvision's large ones
are, and their weights take less than a megabyte.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from mmengine.registry import MODELS
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops import FeaturePyramidNetwork


class Backbone(nn.Module):
    """Maps of strides 4, 8, 16 and 32, all with the same number of channels.

    Args:
        width: Channels of the pyramid.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.out_channels = width
        widths = (24, 32, 48, 64)
        self.stem = _block(3, 16)
        self.stages = nn.ModuleList(_block(before, after) for before, after in zip((16, *widths), widths, strict=False))
        self.fpn = FeaturePyramidNetwork(list(widths), width)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The levels of the pyramid, by number."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x = self.stem(images)
        for number, stage in enumerate(self.stages):
            x = maps[str(number)] = stage(x)
        pyramid: OrderedDict[str, Tensor] = self.fpn(maps)
        return pyramid


def _block(before: int, after: int) -> nn.Sequential:
    """Halves the size."""
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


@MODELS.register_module()
class SceneDetector(RetinaNet):
    """A RetinaNet for images of some 128×160 pixels.

    Args:
        num_classes: With the background.
    """

    def __init__(self, num_classes: int = 4) -> None:
        backbone = Backbone()
        anchors = AnchorGenerator(((16,), (28,), (44,), (64,)), ((1.0,),) * 4)
        head = RetinaNetHead(backbone.out_channels, 1, num_classes, partial(nn.BatchNorm2d))
        super().__init__(
            backbone, num_classes, min_size=128, max_size=256, anchor_generator=anchors, head=head,
            detections_per_img=20,
        )  # fmt: skip


@MODELS.register_module()
class SceneSegmenter(FCN):
    """An FCN for the same images; its map has a quarter of their size.

    Args:
        num_classes: With the background.
    """

    def __init__(self, num_classes: int = 4) -> None:
        backbone = Backbone()
        super().__init__(_FirstLevel(backbone), FCNHead(backbone.out_channels, num_classes))
        self.num_classes = num_classes


class _FirstLevel(nn.Module):
    """The finest level of the pyramid as torchvision's segmenters expect it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = backbone

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """``{'out': map}``."""
        return OrderedDict(out=self.body(images)['0'])
