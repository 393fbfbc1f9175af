"""What feature maps cost: a stage against the whole forward, and files of every channel against a plotting loop."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from timing import machine, measure, ratio, table
from torch import Tensor, nn
from torchvision.models import resnet50

from vistool.network.features import features
from vistool.network.layers import find_target_layers
from vistool.results import ChannelStack, LayerChannels
from vistool.visualization.style import Style
from vistool.visualization.visualizer import write_folder

RATE = 8


def forward(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """The plain forward, without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(inputs)

    return run


def stage(model: nn.Module, inputs: Tensor, layer: str) -> Callable[[], object]:
    """Vistool's features of one layer; the forward stops behind it."""
    targets = find_target_layers(model, [layer])
    return lambda: features(model, inputs, targets)


def enlarge(channel: np.ndarray, rate: int) -> np.ndarray:
    """One channel, ``rate`` times as large, pixel by pixel in Python: four neighbors, centers aligned."""
    height, width = channel.shape
    larger = np.zeros((height * rate, width * rate), np.uint8)
    for row in range(height * rate):
        y = min(max((row + 0.5) / rate - 0.5, 0.0), height - 1.0)
        for column in range(width * rate):
            x = min(max((column + 0.5) / rate - 0.5, 0.0), width - 1.0)
            up, down, left, right = int(y), ceil(y), int(x), ceil(x)
            above = channel[up, left] * (1 - (x - left)) + channel[up, right] * (x - left)
            below = channel[down, left] * (1 - (x - left)) + channel[down, right] * (x - left)
            larger[row, column] = above * (1 - (y - up)) + below * (y - up)
    return larger


def plotting_loop(maps: np.ndarray, folder: Path) -> None:
    """Each channel through a figure: enlarged in Python, ``imshow``, ``savefig``."""
    figure = plt.figure()
    for number, channel in enumerate(maps):
        figure.clf()
        axes = figure.add_subplot()
        axes.imshow(enlarge(channel, RATE))
        axes.axis('off')
        figure.savefig(folder / f'{number}.jpg')
    plt.close(figure)


def main() -> None:
    """Prints one table for the forwards and one for the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--loop-channels', type=int, default=16, help='channels of the slow loop; time is scaled up')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    plt.switch_backend('agg')
    torch.manual_seed(0)
    model = resnet50().eval()
    inputs = torch.randn(args.batch_size, 3, 224, 224)
    print(f'ResNet-50, 224×224; {machine()}')
    contenders = {'forward': forward(model, inputs)}
    contenders |= {f'stage {k}': stage(model, inputs, f'layer{k}') for k in (1, 2, 3, 4)}
    table(f'batch {args.batch_size}', measure(contenders, args.rounds), 'forward')

    maps = features(model, inputs, find_target_layers(model, ['layer4']))[0].maps[0].numpy()
    size = (maps.shape[1] * RATE, maps.shape[2] * RATE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = ChannelStack(layers=(LayerChannels('layer4', maps),), size=size, name='photo')
        writers: dict[str, Callable[[], object]] = {
            'vistool, bilinear': lambda: write_folder(stack, folder / 'a', Style(interpolation='bilinear')),
            'plotting loop': lambda: plotting_loop(maps[: args.loop_channels], folder),
        }
        seconds = measure(writers, max(2, args.rounds // 2))
    scale = len(maps) / args.loop_channels
    seconds['plotting loop'] = [value * scale for value in seconds['plotting loop']]
    table(f'{len(maps)} channels of layer4 as files of {size[0]}×{size[1]}', seconds, 'vistool, bilinear')
    print(f'\n{ratio(seconds, "plotting loop", "vistool, bilinear"):.0f} × faster')


if __name__ == '__main__':
    main()
