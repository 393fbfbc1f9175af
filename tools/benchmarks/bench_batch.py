"""A whole vis_cam run over 1,000 images against the bare forward on the same batches, and its memory at 10,000.

Every figure comes from a process of its own. The run's images per second are those that it reports itself: from the
first image read to the last file written, start-up left out.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from bench_folder import make_photos
from processes import SETTINGS, run
from timing import in_float32, machine

TOOL = Path(__file__).resolve().parents[1] / 'vis_cam.py'
_REPORT = re.compile(r'([\d.]+) images/s \((.+) of the time\)')


def forward(folder: str, config: str, checkpoint: str, batch: int, device: str) -> None:
    """Tells on stderr the images per second of the plain forward, the batches ready in memory."""
    import torch

    import vistool as vt
    from vistool.data.samples import find_inputs

    in_float32()
    model = vt.load(config, checkpoint, device=device)
    samples = [model.read(item.path) for item in find_inputs(folder)]
    batches = [model.batch(samples[start : start + batch]) for start in range(0, len(samples), batch)]
    with torch.no_grad():
        model.module(batches[0])
        start_time = time.perf_counter()
        for inputs in batches:
            model.module(inputs)
        if model.device.type == 'cuda':
            torch.cuda.synchronize()
    print(f'{len(samples) / (time.perf_counter() - start_time):.2f} images/s (all of the time)', file=sys.stderr)


def speed(text: str) -> tuple[float, str]:
    """Images per second and where the time went, from what a process said."""
    found = _REPORT.search(text)
    assert found, text
    return float(found.group(1)), found.group(2)


def multiply(photos: Path, times: int) -> None:
    """Makes a folder hold each of its photos ``times`` times, as links."""
    for path in list(photos.glob('*.jpg')):
        for copy in range(times - 1):
            (photos / f'{copy}').mkdir(exist_ok=True)
            os.link(path, photos / f'{copy}' / path.name)


def main() -> None:
    """Prints both speeds, their ratio, and peak memories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default='configs/efficientnet_lite/efficientnet-lite0_in1k.py')
    parser.add_argument('--checkpoint', default='demo://efficientnet-lite0')
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--many', type=int, default=10000, help='for the memory; 0: leave out')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--options', nargs='*', default=[], help='more of vis_cam, without dashes: layout=overlay')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--forward', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.forward:
        forward(args.forward, args.config, args.checkpoint, args.batch_size, args.device)
        return
    how = ['--batch-size', str(args.batch_size), '--device', args.device]
    common = ['--config', args.config, '--checkpoint', args.checkpoint, *how]
    extra = [f'--{option}' for option in args.options]
    with tempfile.TemporaryDirectory() as root:
        photos = Path(root) / 'photos'
        photos.mkdir()
        make_photos(photos, args.images)
        tool = [str(TOOL), str(photos), args.config, args.checkpoint, *how, *extra]
        print(f'{args.config}, {args.images} images, batches of {args.batch_size}; {machine()}')
        for number in range(args.rounds):
            plain = [__file__, '--forward', str(photos), *common]
            bare, tuned = (speed(run(plain, settings).said)[0] for settings in ({}, SETTINGS))
            cost = run([*tool, '-o', f'{root}/out{number}'])
            drawn, parts = speed(cost.said)
            print(
                f'forward {tuned:.1f} images/s ({bare:.1f} with the settings of any process), vis_cam {drawn:.1f} '
                f'({parts}): {drawn / tuned:.2f} ×',
                flush=True,
            )
        if args.many:
            multiply(photos, args.many // args.images)
            memory, more = cost.memory, run([*tool, '-o', f'{root}/many']).memory
            print(
                f'peak memory {memory:.0f} MiB at {args.images}, {more:.0f} MiB at {args.many}: {more / memory:.2f} ×'
            )


if __name__ == '__main__':
    main()
