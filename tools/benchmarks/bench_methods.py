"""What each method of vis_cam costs for one image and class, in plain forwards: the figures of docs/vis_cam.md."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Sequence

import torch
from timing import machine, measure, table
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50, vit_b_16

from vistool import CAM
from vistool.analyses.cam import METHODS

SLOW = ('ablationcam', 'scorecam')
"""Methods that run the network or its tail once for each channel."""
LAYERS = {'ResNet-50': 'layer4', 'ResNet-18': 'layer4', 'ViT-B/16': 'encoder.layers[-1].ln_1'}
FOUR_STAGES = ['layer1', 'layer2', 'layer3', 'layer4']


def forward(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """The plain forward, without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(inputs)

    return run


def contenders(
    model: nn.Module, inputs: Tensor, methods: Sequence[str], layers: Sequence[str]
) -> dict[str, Callable[[], object]]:
    """The plain forward and each method by itself."""

    def alone(name: str) -> Callable[[], object]:
        cam = CAM([name], targets=[281], layers=layers)
        return lambda: cam(model, inputs)

    return {'forward': forward(model, inputs), **{METHODS[name].title: alone(name) for name in methods}}


def main() -> None:
    """Prints one table per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    inputs = torch.randn(1, 3, 224, 224, device=args.device)
    print(f'224×224, batch 1; {machine()}')
    quick = [name for name in METHODS if name not in SLOW]
    for name, build in {'ResNet-50': resnet50, 'ViT-B/16': vit_b_16}.items():
        model = build().eval().to(args.device)
        known = [method for method in quick if method != 'fullgrad' or name == 'ResNet-50']
        seconds = measure(contenders(model, inputs, known, [LAYERS[name]]), args.rounds)
        table(f'{name}, {LAYERS[name]}', seconds, 'forward')
        ablation = contenders(model, inputs, ['ablationcam'], [LAYERS[name]])
        table(f'{name}, {LAYERS[name]}', measure(ablation, args.rounds), 'forward')
    model = resnet50().eval().to(args.device)
    table('ResNet-50, four stages', measure(contenders(model, inputs, ['refinecam'], FOUR_STAGES), 3), 'forward')
    model = resnet18().eval().to(args.device)
    slow = contenders(model, inputs, SLOW, [LAYERS['ResNet-18']])
    table(f'ResNet-18, {LAYERS["ResNet-18"]}, 512 channels', measure(slow, 1, warm_up=False), 'forward')


if __name__ == '__main__':
    main()
