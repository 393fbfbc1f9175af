"""Maps of many predictions of one detector: vistool's way beside a full backward for each, as grad-cam does it.

    python tools/benchmarks/bench_instances.py [--instances 20] [--network retinanet_resnet50_fpn]

Both explain the same predictions at all levels of the pyramid, on the same network with random weights at 640×480. The
full backward differentiates each prediction's score with respect to everything, parameters too. The maps of both are
compared first; then the time of each is printed as a multiple of the plain forward.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence

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
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    network.backbone.train()  # one pass sets the statistics of its norms, else activations grow from layer to layer
    with torch.no_grad():
        network([torch.rand(3, 128, 160)] * 2)
    return network.eval()


def full_backwards(network: nn.Module, image: Tensor, chosen: Sequence[int]) -> dict[int, Tensor]:
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
    found = {}
    for index in chosen:
        for tensor in kept:
            tensor.grad = None
        scores[index].backward(retain_graph=True)
        maps = [(each.grad * each)[0].sum(0).detach() for each in kept if each.grad is not None and each.grad.any()]
        (found[index],) = maps
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
    with torch.no_grad():
        count = len(network([image])[0]['scores'])
    chosen = np.linspace(0, count - 1, args.instances).astype(int).tolist()  # they come from all levels
    cam = vt.CAM('hirescam', instances=chosen, score_threshold=0.0, layer_fusion='none')

    def plain() -> object:
        with torch.no_grad():
            return network([image])

    contenders = {
        'forward': plain,
        'vistool': lambda: cam(model, image),
        'full backwards': lambda: full_backwards(network, image, chosen),
    }
    print(machine())
    naive = full_backwards(network, image, chosen)
    levels = Counter(f'{each.shape[0]}×{each.shape[1]}' for each in naive.values())
    print('predictions by level:', ', '.join(f'{count} of {size}' for size, count in levels.items()))
    apart = difference(cam(model, image), naive)
    print(f'largest difference of the maps, relative to their maximum: {apart:.1e}')
    if not apart < 1e-4:
        raise SystemExit('the maps differ')
    seconds = measure(contenders, args.rounds, warm_up=False, clock=time.process_time)
    table(f'{args.network}, {args.instances} predictions, 640×480, CPU time', seconds, 'forward')


def difference(own: vt.Heatmaps, naive: Mapping[int, Tensor]) -> float:
    """The largest difference of the maps, each relative to its maximum."""
    found = []
    for number, wanted in naive.items():
        every = [item.signed for item in own if item.coordinates['instance'] == number]
        (same,) = [each for each in every if each is not None and each.shape == wanted.shape]
        found.append(float(np.abs(same - wanted.numpy()).max() / wanted.abs().max()))
    return float(np.max(found))  # NaN stays NaN


if __name__ == '__main__':
    main()
