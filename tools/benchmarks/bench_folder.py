"""Images per second over a folder, maps drawn and written, against the plain forward on the same batches."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from timing import machine

import vistool as vt
from vistool.data.samples import Item, find_inputs
from vistool.network.tensors import NetworkInput
from vistool.runs.batches import Batches
from vistool.visualization.files import encode_pixels
from vistool.visualization.kinds import picture_pixels
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

T = TypeVar('T')


def make_photos(folder: Path, count: int) -> None:
    """``count`` JPEGs of 500×375, cut at random from the demo photos."""
    rng = np.random.default_rng(0)
    photos = [Image.open(path).convert('RGB').resize((800, 600)) for path in sorted(Path('demo').glob('*.png'))]
    for number in range(count):
        left, top = (int(each) for each in rng.integers(0, (300, 225)))
        photos[number % len(photos)].crop((left, top, left + 500, top + 375)).save(folder / f'{number:04d}.jpg')


def draw_folder(model: vt.Model, items: list[Item], out: Path, batch: int, style: Style) -> float:
    """Seconds for reading, explaining, drawing and writing all items."""
    cam, visualizer = vt.CAM(), Visualizer(out, style)
    start = time.perf_counter()
    Batches(
        lambda index, item: (model.read(item.path, index=index, name=item.name),),
        lambda views: cam(model, views[0]),
        lambda result, sample, seconds: visualizer.write(result, sample.name),
        batch,
    ).run(items, lambda paths: None, lambda index, item, error: print(error))
    return time.perf_counter() - start


def forward(model: vt.Model, items: list[Item], batch: int) -> float:
    """Seconds for the plain forward on the same batches, ready in memory."""
    samples = [model.read(item.path) for item in items]
    batches = [model.batch(samples[start : start + batch]) for start in range(0, len(samples), batch)]
    start = time.perf_counter()
    with torch.no_grad():
        for inputs in batches:
            model.module(inputs)
    return time.perf_counter() - start


def costs(config: str, checkpoint: str, folder: Path, count: int = 32, batch: int = 8) -> dict[str, float]:
    """CPU milliseconds an image in one thread: reading, the plain forward, what maps take beyond it, drawing, encoding.

    Args:
        config: The config.
        checkpoint: The weights.
        folder: Photos.
        count: How many of them.
        batch: Images in a forward.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, cam, style = vt.load(config, checkpoint), vt.CAM(), Style()
    items = find_inputs(str(folder))[:count]
    found: dict[str, list[float]] = {}

    def part(name: str, work: Callable[[], T]) -> T:
        start = time.process_time()
        result = work()
        found.setdefault(name, []).append(time.process_time() - start)
        return result

    def plain(inputs: Sequence[NetworkInput]) -> None:
        with torch.no_grad():
            for each in inputs:
                model.module(each)

    for _ in range(4):
        samples = part('read', lambda: [model.read(item.path) for item in items])
        batches = [samples[start : start + batch] for start in range(0, count, batch)]
        inputs = [model.batch(each) for each in batches]
        part('forward', lambda inputs=inputs: plain(inputs))
        results = part('maps', lambda batches=batches: [each for one in batches for each in cam(model, one)])
        pixels = part('draw', lambda results=results: [picture_pixels(each, style) for each in results])
        part('encode', lambda pixels=pixels: [encode_pixels(each, '.png') for each in pixels])
    torch.set_num_threads(threads)
    middle = {name: statistics.median(seconds[1:]) / count * 1000 for name, seconds in found.items()}
    return {**middle, 'maps': middle['maps'] - middle['forward']}


def main() -> None:
    """Prints images per second of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default='mmpretrain::resnet/resnet50_8xb32_in1k.py')
    parser.add_argument('--checkpoint', default='none')
    parser.add_argument('--images', type=int, default=200)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--layout', default='grid', choices=['grid', 'overlay'])
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    model = vt.load(args.config, args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder), args.images)
        items = find_inputs(folder)
        style = Style(layout=args.layout)
        draw_folder(model, items[: args.batch_size], Path(folder) / 'out', args.batch_size, style)  # not counted
        plain = forward(model, items, args.batch_size)
        drawn = draw_folder(model, items, Path(folder) / 'out', args.batch_size, style)
        again = forward(model, items, args.batch_size)
    base = (plain + again) / 2
    print(f'{args.config}, {args.images} images, batches of {args.batch_size}, {args.layout}; {machine()}')
    print(
        f'forward {args.images / base:.1f} images/s, vis_cam {args.images / drawn:.1f} images/s: {base / drawn:.2f} ×'
    )


if __name__ == '__main__':
    main()
