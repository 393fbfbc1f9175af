"""What cutting a 12-megapixel photo into 16-pixel patches costs: the whole command after imports, and each route."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from timing import machine, measure, table

from vistool.analyses.patches import Patches
from vistool.data.patches import PatchGrid, split_convolution, split_einops, split_unfold
from vistool.data.samples import read_image
from vistool.visualization.visualizer import Visualizer

SIZE = 3000, 4000
PATCH = 16


def command(photo: Path, out: Path) -> None:
    """What ``vis_patches PHOTO --patch-size 16 -o OUT`` does once everything is imported."""
    Visualizer(out).write(Patches(PATCH)(None, str(photo)), 'x')


def main() -> None:
    """Prints CPU seconds and peak memory of the command, and a table of the routes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    coarse = np.random.default_rng(0).integers(0, 256, (SIZE[0] // 50, SIZE[1] // 50, 3), np.uint8)
    photo = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    print(f'{SIZE[1]}×{SIZE[0]} pixels, patches of {PATCH}; {machine()}')
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'photo.jpg'
        cv2.imwrite(str(source), photo)
        command(source, Path(folder) / 'warm.png')  # the first picture also loads fonts
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times = []
        for number in range(args.rounds):
            start = time.process_time()
            command(source, Path(folder) / f'{number}.png')
            times.append(time.process_time() - start)
        start = time.process_time()
        read_image(source)
        print(
            f'read, cut, drawn and written: {np.median(times):.2f} s of CPU; '
            f'reading alone {time.process_time() - start:.2f}'
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f'peak memory {peak / 1024:.0f} MiB (after the first picture {before / 1024:.0f}); '
        f'photo {photo.nbytes / 2**20:.0f}'
    )
    image = torch.from_numpy(photo).permute(2, 0, 1)
    grid = PatchGrid.over(SIZE, PATCH)
    routes = {'einops': split_einops, 'unfold': split_unfold, 'convolution': split_convolution}
    for kind, tensor in (('uint8', image.contiguous()), ('float32', image.float().contiguous())):
        contenders = {name: lambda route=route, data=tensor: route(data, grid) for name, route in routes.items()}
        table(f'12 megapixels, {kind}', measure(contenders, args.rounds), 'einops')


if __name__ == '__main__':
    main()
