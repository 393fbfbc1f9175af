"""Maps of many predictions of one detector: vistool's way beside a full backward for each, as grad-cam does it.

    python tools/benchmarks/bench_instances.py [--instances 20] [--network retinanet_resnet50_fpn]

Both explain the same predictions at all levels of the pyramid, on the same network with random weights at 640×480. The
full backward differentiates each prediction's score with respect to everything, parameters too. Prints the time of each
as a multiple of the plain forward, and how far the maps differ.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from timing import machine, measure, table
from torch import Tensor, nn
from torchvision.models import get_model

import vistool as vt
from vistool.network.detection import find_detector


def build(name: str) -> nn.Module:
    """The detector, with thresholds so low that random weights predict enough."""
    torch.manual_seed(0)
    sizes = {} if name.startswith('ssd') else {'min_size': 480, 'max_size': 640}  # the image as it is
    network = get_model(name, weights=None, weights_backbone=None, num_classes=91, **sizes).eval()
    for module in network.modules():
        if hasattr(module, 'score_thresh'):
            module.score_thresh = 0.0
    return network


def full_backwards(network: nn.Module, image: Tensor, count: int) -> list[Tensor]:
    """HiResCAM of each prediction at its level, before scaling: one forward, and a backward to the first layer each."""
    detector = find_detector(network)
    assert detector is not None
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: dict[str, Tensor]) -> None:
        kept.extend(output.values())
        for tensor in output.values():
            tensor.retain_grad()

    pyramid = network.get_submodule(detector.layers()[0].partition('[')[0])
    handle = pyramid.register_forward_hook(keep)
    scores = network([image])[0]['scores']
    handle.remove()
    found = []
    for index in range(count):
        for tensor in kept:
            tensor.grad = None
        scores[index].backward(retain_graph=True)
        maps = [(each.grad * each)[0].sum(0).detach() for each in kept if each.grad is not None and each.grad.any()]
        found.append(maps[0])
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--instances', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--network', default='retinanet_resnet50_fpn')
    args = parser.parse_args()
    network = build(args.network)
    image = torch.rand(3, 480, 640, generator=torch.Generator().manual_seed(0))
    model = vt.load(network)
    cam = vt.CAM('hirescam', instances=f'top{args.instances}', score_threshold=0.0, layer_fusion='none')

    def plain() -> object:
        with torch.no_grad():
            return network([image])

    found: dict[str, Any] = {}
    contenders = {
        'forward': plain,
        'vistool': lambda: found.update(own=cam(model, image)),
        'full backwards': lambda: found.update(naive=full_backwards(network, image, args.instances)),
    }
    print(machine())
    seconds = measure(contenders, args.rounds, warm_up=False, clock=time.process_time)
    table(f'{args.network}, {args.instances} predictions, 640×480, CPU time', seconds, 'forward')
    apart = 0.0
    for number, wanted in enumerate(found['naive']):
        same = [item.signed for item in found['own'] if item.coordinates['instance'] == number]
        near = [each for each in same if each is not None and each.shape == wanted.shape]
        apart = max(apart, float(np.abs(near[0] - wanted.numpy()).max() / wanted.abs().max()))
    print(f'largest difference of the maps, relative to their maximum: {apart:.1e}')


if __name__ == '__main__':
    main()
