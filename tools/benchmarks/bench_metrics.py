"""What insertion, deletion and ROAD cost beyond the forwards of their changed copies, and what they cost elsewhere.

Elsewhere: torch-cam for insertion and deletion, pytorch-grad-cam for ROAD, the same curves of the same maps, one map
after another as their documentation calls them; and Quantus, if it is installed. All results are compared before
anything is timed. Maps are made before, so that neither pays for them.

Quantus has no insertion: it is the deletion of the negative map, read backwards. Its ROAD tells whether the class is
still the predicted one and not the score, so its imputation is called here copy by copy, as its ROAD does.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torchvision
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from timing import in_float32, machine, measure, ratio, table
from torch import Tensor, nn
from torchcam.metrics import DeletionInsertionMetric

from vistool import CAM
from vistool.commands.boundary import tune_process
from vistool.metrics import Case, Network, evaluate, find_metrics, find_protocol

METHODS = [
    'gradcam',
    'gradcam++',
    'xgradcam',
    'layercam',
    'hirescam',
    'gradcamelementwise',
    'eigengradcam',
    'shapleycam',
]
NAMES = ['insertion', 'deletion', 'road']
PROTOCOL = replace(find_protocol('torchcam'), name='bench', covers=(), steps=24, noise=0.0)
"""torch-cam's curves; without ties and noise, its ROAD is pytorch-grad-cam's."""
TARGET = 281
SIDE = 240
"""Quantus removes whole pixels where three times the pixels of a step divide H·W."""


class Counted(nn.Module):
    """A network that counts the images it is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.images = module, 0

    def forward(self, images: Tensor) -> Tensor:
        """The network's output."""
        self.images += len(images)
        return self.module(images)


class OnItsDevice(nn.Module):
    """A network that takes its input to its own device, for tools that prepare it on the CPU."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.eval()  # Quantus asks

    def forward(self, images: Tensor) -> Tensor:
        """The network's output."""
        return self.module(images.to(next(self.module.parameters()).device))


class Extractor:
    """A map that is made already, as torch-cam's metrics ask for it."""

    def __init__(self, model: nn.Module, values: Tensor) -> None:
        self.model, self.values = model, values

    def __call__(self, *_args: Any, **_kwargs: Any) -> list[Tensor]:
        """The map, on the network's device."""
        return [self.values]

    def fuse_cams(self, cams: Sequence[Tensor]) -> Tensor:
        """The only map."""
        return cams[0]

    def _hooks_off(self) -> AbstractContextManager[None]:
        return nullcontext()


def ours(model: nn.Module, image: Tensor, maps: Sequence[Tensor], names: Sequence[str], batch: int) -> np.ndarray:
    """The metrics ``(maps, names)``."""
    scorers = [lambda output, count: output.softmax(1)[:, TARGET]]
    network = Network(model, image[None], scorers, batch)
    found = evaluate([(Case(each, image, PROTOCOL), 0) for each in maps], find_metrics(names, PROTOCOL), network)
    return np.array([[each[name].value for name in names] for each in found])


def theirs(model: nn.Module, image: Tensor, values: Tensor, batch: int) -> np.ndarray:
    """The same three numbers of one map, by torch-cam and pytorch-grad-cam."""
    curves = DeletionInsertionMetric(Extractor(model, values[None].to(image.device)), lambda output: output.softmax(-1))
    curves.steps, curves.batch_size = PROTOCOL.steps, batch
    curves.update(image[None], TARGET)
    summary = curves.summary()
    return np.array([summary['insertion_auc'], summary['deletion_auc'], road(model, image, values)])


def road(model: nn.Module, image: Tensor, values: Tensor) -> float:
    """ROAD of one map by pytorch-grad-cam, without its noise, which has no seed."""
    change = []
    for kind in (ROADMostRelevantFirst, ROADLeastRelevantFirst):
        for percent in PROTOCOL.percent:
            metric, target = kind(percentile=percent), [ClassifierOutputSoftmaxTarget(TARGET)]
            metric.perturbation.imputer.noise = 0.0
            change.append(float(metric(image[None].cpu(), values[None].numpy(), target, OnItsDevice(model))[0]))
    most, least = np.array(change).reshape(2, -1)
    return float(least.mean() - most.mean()) / 2


def quantus_numbers(model: nn.Module, image: Tensor, values: Tensor) -> np.ndarray:
    """The same three numbers of one map, with what Quantus has."""
    from quantus import PixelFlipping

    step = 3 * values.numel() // PROTOCOL.steps  # whole pixels of three channels
    metric = PixelFlipping(features_in_step=step, perturb_baseline=0.0, disable_warnings=True)
    batch = {'x_batch': image[None].cpu().numpy(), 'y_batch': np.array([TARGET]), 'device': str(image.device)}
    flipped = [
        np.array(metric(model=OnItsDevice(model), a_batch=sign * values[None, None].numpy(), softmax=True, **batch)[0])
        for sign in (1, -1)
    ]
    with torch.no_grad():
        plain = float(model(image[None]).softmax(1)[0, TARGET])
    deleted, inserted = (np.array([plain, *each]) for each in flipped)
    fractions = np.linspace(0, 1, PROTOCOL.steps + 1)
    areas = [np.trapezoid(curve, fractions) for curve in (inserted[::-1], deleted)]
    return np.array([*areas, quantus_road(model, image, values)])


def quantus_road(model: nn.Module, image: Tensor, values: Tensor) -> float:
    """ROAD of one map with Quantus' imputation, without its noise, which has no seed."""
    from quantus.functions.perturb_func import noisy_linear_imputation

    scores = []
    for relevance in (values, -values):
        order = np.argsort(-relevance.flatten().numpy(), kind='stable')
        for percent in PROTOCOL.percent:
            copy = noisy_linear_imputation(image.cpu().numpy(), order[: round(len(order) * percent / 100)], noise=0.0)
            with torch.no_grad():
                output = model(torch.from_numpy(copy[None]).to(image))
            scores.append(float(output.softmax(1)[0, TARGET]))
    most, least = np.array(scores).reshape(2, -1)
    return float(least.mean() - most.mean()) / 2


def without_ties(values: Tensor) -> Tensor:
    """The map with the order of its pixels in place of equal values."""
    order = torch.argsort(values.flatten(), stable=True)
    ranks = torch.empty(len(order))
    ranks[order] = torch.arange(len(order)) / len(order)
    return ranks.view(values.shape)


def prepared(network: str, side: int, count: int, device: str) -> tuple[nn.Module, Tensor, list[Tensor]]:
    """A network with random weights, an image ``(3, side, side)``, and its maps by the first ``count`` methods."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(network).eval().to(device)
    small = torch.randn(1, 3, side // 8, side // 8)
    image = nn.functional.interpolate(small, (side, side), mode='bicubic')[0].to(device)
    head = [each for each in model.modules() if isinstance(each, nn.Linear)][-1]
    with torch.no_grad():  # random weights give flat scores, in which no difference would show
        head.weight *= 3 / model(image[None]).std()
    found = CAM(METHODS[:count], targets=[TARGET])(model, image)
    return model, image, [without_ties(torch.from_numpy(each.values)) for each in found.maps]


def compared(model: nn.Module, image: Tensor, maps: Sequence[Tensor], batch: int) -> int:
    """Compares our numbers with theirs; returns how many changed copies ours took.

    Raises:
        AssertionError: They differ.
    """
    counted = Counted(model)
    numbers = ours(counted, image, maps, NAMES, batch)
    expected = theirs(model, image, maps[0], batch)
    print('largest difference to torch-cam and pytorch-grad-cam:', f'{np.abs(numbers[0] - expected).max():.1e}')
    assert np.allclose(numbers[0], expected, atol=1e-4)  # pixels are imputed to 1e-4
    if find_spec('quantus'):
        expected = quantus_numbers(model, image, maps[0])
        print('largest difference to Quantus:', f'{np.abs(numbers[0] - expected).max():.1e}')
        assert np.allclose(numbers[0], expected, atol=1e-4)
    return counted.images


def forwards(model: nn.Module, image: Tensor, count: int, batch: int) -> None:
    """The plain forward of so many images."""
    with torch.no_grad():
        for start in range(0, count, batch):
            model(image.expand(min(batch, count - start), -1, -1, -1).contiguous())


def main() -> None:
    """Compares, then times and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--maps', type=int, default=len(METHODS), help='how many of the eight maps')
    parser.add_argument('--network', default='resnet50', help='of torchvision')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    in_float32()
    tune_process()  # as the commands do; all contenders run faster
    batch = args.batch_size
    model, image, maps = prepared(args.network, SIDE, args.maps, args.device)
    copies = compared(model, image, maps, batch)
    points = len(maps) * (2 * (PROTOCOL.steps + 1) + 2 * len(PROTOCOL.percent))
    print(f'{args.network}, {SIDE}×{SIDE}; {machine()}')
    print(f'{len(maps)} map(s): {copies} different copies give {points} points of curves')
    # seconds of the processor's work, which other programs on the machine disturb least
    timed = partial(measure, clock=time.perf_counter if args.device != 'cpu' else time.process_time)
    contenders: dict[str, Callable[[], object]] = {
        'plain forward': lambda: forwards(model, image, copies, batch),
        'vistool': lambda: ours(model, image, maps, NAMES, batch),
    }
    seconds = timed(contenders, args.rounds)
    table(f'insertion, deletion and ROAD of {len(maps)} map(s)', seconds, 'plain forward')
    print(f'\nchanged copies a second: {1 / ratio(seconds, "vistool", "plain forward"):.2f} × the plain forward')
    contenders |= {
        'torch-cam and pytorch-grad-cam': lambda: [theirs(model, image, each, batch) for each in maps],
        'pytorch-grad-cam, ROAD alone': lambda: [road(model, image, each) for each in maps],
        'vistool, ROAD alone': lambda: ours(model, image, maps, ['road'], batch),
    }
    if find_spec('quantus'):
        contenders['Quantus'] = lambda: [quantus_numbers(model, image, each) for each in maps]
    seconds = timed(contenders, 1, warm_up=False)
    table('the same numbers elsewhere', seconds, 'vistool')
    most = ratio(seconds, 'torch-cam and pytorch-grad-cam', 'plain forward')
    print(f'\nforwards alone, without any other work, would be {most:.1f} × faster than they are: no tool can be more')


if __name__ == '__main__':
    main()
