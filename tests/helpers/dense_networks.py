"""Tiny detectors and segmenters with random weights, and a naive oracle for their maps."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD

from demo.scenes.networks import Backbone, SceneSegmenter

CLASSES = ('background', 'circle', 'square', 'triangle')


def _randomized(network, seed):
    """Weights and statistics that give scores apart from each other, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * (0.6 / max(1, parameter[0].numel()) ** 0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(1.0)
    return network.eval()


def _sizes():
    return AnchorGenerator(((8,), (16,), (32,), (48,)), ((0.5, 1.0),) * 4)


SIZES = {'min_size': 64, 'max_size': 96}


def retinanet(seed=0):
    backbone = Backbone(32)
    head = RetinaNetHead(32, 2, 4, partial(nn.BatchNorm2d))
    options = {**SIZES, 'score_thresh': 0.01, 'topk_candidates': 50}
    return _randomized(detection.RetinaNet(backbone, 4, anchor_generator=_sizes(), head=head, **options), seed)


class Levels(nn.Module):
    """Maps of strides 8 and 16 under keys of one's own; without keys a tensor, the finer one."""

    out_channels = 16

    def __init__(self, keys):
        super().__init__()
        self.keys = keys
        self.fine, self.coarse = nn.Conv2d(3, 16, 8, 8), nn.Conv2d(3, 16, 16, 16)

    def forward(self, images):
        fine = self.fine(images)
        return dict(zip(self.keys, (fine, self.coarse(images)), strict=False)) if self.keys else fine


def without_pyramid(keys, seed=0):
    count = max(len(keys), 1)
    anchors = AnchorGenerator(((12,), (24,))[:count], ((1.0,),) * count)
    options = {**SIZES, 'score_thresh': 0.01, 'topk_candidates': 50}
    return _randomized(detection.RetinaNet(Levels(keys), 4, anchor_generator=anchors, **options), seed)


def fcos(seed=0):
    anchors = AnchorGenerator(((8,), (16,), (32,), (48,)), ((1.0,),) * 4)
    options = {**SIZES, 'score_thresh': 0.01, 'topk_candidates': 50}
    return _randomized(detection.FCOS(Backbone(32), 4, anchor_generator=anchors, **options), seed)


def ssd(seed=0):
    backbone = Backbone(32)
    backbone.out_channels = [32] * 4
    boxes = DefaultBoxGenerator([[2]] * 4, scales=[0.1, 0.2, 0.4, 0.6, 0.8], steps=[4, 8, 16, 32])
    head = detection.ssd.SSDHead([32] * 4, boxes.num_anchors_per_location(), 4)
    options = {'score_thresh': 0.01, 'topk_candidates': 50}
    return _randomized(SSD(backbone, boxes, (64, 64), 4, head=head, **options), seed)


def faster_rcnn(seed=0):
    options = {**SIZES, 'box_score_thresh': 0.01, 'rpn_post_nms_top_n_test': 40}
    return _randomized(detection.FasterRCNN(Backbone(32), 4, rpn_anchor_generator=_sizes(), **options), seed)


def mask_rcnn(seed=0):
    options = {**SIZES, 'box_score_thresh': 0.01, 'rpn_post_nms_top_n_test': 40, 'box_detections_per_img': 8}
    return _randomized(detection.MaskRCNN(Backbone(32), 4, rpn_anchor_generator=_sizes(), **options), seed)


def fcn(seed=0):
    network = _randomized(SceneSegmenter(4), seed)
    with torch.no_grad():  # no class is predicted everywhere
        image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(5))
        network.classifier[-1].bias -= network(image)['out'].mean((0, 2, 3))
    return network


TORCHVISION = {each.__name__: each for each in (retinanet, fcos, ssd, faster_rcnn, mask_rcnn)}


def edge(score, box, attribute):
    left, top, right, bottom = box
    outward = {'left': -left, 'top': -top, 'right': right, 'bottom': bottom}
    if attribute == 'class':
        return score
    return sum(outward.values()) if attribute == 'box' else outward[attribute]


def naive_maps(network, run, layers, numbers, size, frame, valid, fuse='mean'):
    """HiResCAM of numbers by a backward each through the whole network: per layer, then fused.

    Args:
        network: The network.
        run: ``() → output``.
        layers: ``[(module, key)]``; the key of a tensor in the dict that the module returns, or None.
        numbers: ``[output → number]``.
        size: Of the result.
        frame: What the layers see.
        valid: The image in that.
        fuse: ``mean`` or ``max``.
    """
    kept = {}

    def keep(module, args, output):
        for layer, key in layers:
            if layer is module:
                kept[layer, key] = output if key is None else output[key]

    for parameter in network.parameters():
        parameter.requires_grad_(True)
    handles = [module.register_forward_hook(keep) for module in {layer for layer, _ in layers}]
    output = run()
    for handle in handles:
        handle.remove()
    values = [kept[each] for each in layers]
    return [_naive_map(number(output), values, size, frame, valid, fuse) for number in numbers]


def _naive_map(number, values, size, frame, valid, fuse):
    gradients = torch.autograd.grad(number, values, allow_unused=True, retain_graph=True)
    unit = []
    for value, gradient in zip(values, gradients, strict=True):
        gradient = torch.zeros_like(value) if gradient is None else gradient
        signed = (value.detach() * gradient)[0].sum(0).clamp_min(0).numpy().astype(np.float64)
        unit.append(enlarged(scaled(signed), frame))
    fused = scaled(np.maximum.reduce(unit) if fuse == 'max' else sum(unit) / len(unit))
    cut = fused[: valid[0], : valid[1]]
    return cut if cut.shape == tuple(size) else enlarged(cut, size)


def scaled(values):
    span = values.max() - values.min()
    return (values - values.min()) / (span + min(max(span, 1e-300), 1e-7))


def enlarged(values, size):
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    return F.interpolate(tensor, tuple(size), mode='bilinear', align_corners=False)[0, 0].numpy()
