"""Two small detectors and a small segmenter for the scenes in this folder.

They are torchvision's own classes around a small backbone, and an RT-DETR of transformers, so they are read and
explained as the large ones are. Their weights take a megabyte or less.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

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


def scene_rt_detr(classes: Sequence[str]) -> Any:
    """A ``RTDetrForObjectDetection`` of transformers for the same images."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type='basic',
        out_features=['stage2', 'stage3', 'stage4'],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        freeze_backbone_batch_norms=False, encoder_in_channels=[32, 48, 64], decoder_in_channels=[32, 32, 32],
        encoder_hidden_dim=32, encoder_ffn_dim=64, encoder_attention_heads=4, hidden_expansion=0.5,
        d_model=32, decoder_layers=2, decoder_ffn_dim=64, decoder_attention_heads=4, num_queries=20, num_denoising=20,
        label_noise_ratio=0.3, id2label=dict(enumerate(classes)), label2id={name: n for n, name in enumerate(classes)},
    )  # fmt: skip
    return RTDetrForObjectDetection(config)


class _FirstLevel(nn.Module):
    """The finest level of the pyramid as torchvision's segmenters expect it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = backbone

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """``{'out': map}``."""
        return OrderedDict(out=self.body(images)['0'])
