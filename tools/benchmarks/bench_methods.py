"""What each method of vis_cam costs for one image and class, in plain forwards: the figures of docs/en/vis_cam.md."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from timing import machine, measure, table
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from vistool import CAM
from vistool.analyses.cam.methods import METHODS

PER_CHANNEL = ['ablationcam', 'scorecam']
"""Methods that run the network, or its tail, once for each channel."""
STAGES = ['layer1', 'layer2', 'layer3', 'layer4']


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
    """Prints one table for each layer and network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    # seconds of the processor's work, which other programs on the machine disturb least
    clock = time.perf_counter if args.device != 'cpu' else time.process_time
    inputs = torch.randn(1, 3, 224, 224, device=args.device)
    print(f'224×224, batch 1; {machine()}')
    large, small = resnet50().eval().to(args.device), resnet18().eval().to(args.device)
    quick = [name for name in METHODS if name not in PER_CHANNEL]
    for title, model, methods, layers, rounds in (
        ('ResNet-50, layer4', large, quick, STAGES[3:], args.rounds),
        ('ResNet-50, four stages', large, ['gradcam', 'refinecam'], STAGES, args.rounds),
        ('ResNet-50, layer4, 2048 channels', large, ['ablationcam'], STAGES[3:], args.rounds),
        ('ResNet-18, layer4, 512 channels', small, PER_CHANNEL, STAGES[3:], 1),
    ):
        seconds = measure(contenders(model, inputs, methods, layers), rounds, warm_up=rounds > 1, clock=clock)
        table(title, seconds, 'forward')


if __name__ == '__main__':
    main()
