"""Images per second of browse_dataset and of mmpretrain's tool, over the same generated photographs.

mmpretrain's drawing needs matplotlib 3.10: give a folder that has it as ``--matplotlib``
(``pip install --no-deps --target FOLDER 'matplotlib==3.10.*'``); without it only its ``original`` mode runs. Start-up
is left out: the clock runs from the first file written to the last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from timing import machine

OURS = Path(__file__).resolve().parents[1] / 'browse_dataset.py'
CONFIG = """
_base_ = {base!r}
data = dict(data_root={root!r}, split='', ann_file='list.txt')
train_dataloader = dict(dataset=data)
"""


def make_photos(folder: Path, count: int, size: tuple[int, int] = (375, 500)) -> Path:
    """Smooth colored noise of ImageNet's usual size as JPEG files, a list of them, and the config that reads them."""
    generator = np.random.default_rng(0)
    lines = []
    for k in range(count):
        small = Image.fromarray(generator.integers(0, 256, (12, 16, 3), np.uint8))
        photo = np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC), np.int16)
        photo = np.clip(photo + generator.integers(-12, 13, photo.shape), 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / f'{k:04d}.jpg', quality=90)
        lines.append(f'{k:04d}.jpg {k % 1000}\n')
    (folder / 'list.txt').write_text(''.join(lines))
    config = folder / 'config.py'
    # a path and not 'mmpretrain::…', whose scope mark on the visualizer mmpretrain's own tool fails on
    base = their_folder() / 'configs' / 'resnet' / 'resnet50_8xb32_in1k.py'
    config.write_text(CONFIG.format(root=str(folder), base=str(base)))
    return config


def their_folder() -> Path:
    """Where mmpretrain's tools and configs are installed."""
    import mmpretrain

    return Path(mmpretrain.__file__).parent / '.mim'


def rate(command: Sequence[str], folder: Path, first_on_path: str | None = None) -> float:
    """Images per second of a run that writes one file for each, from the first file to the last."""
    environment = {**os.environ, 'MPLBACKEND': 'agg'}
    if first_on_path:
        environment['PYTHONPATH'] = first_on_path
    words = [sys.executable, *command, '-o', str(folder)]
    subprocess.run(words, check=True, env=environment, capture_output=True)
    times = sorted(path.stat().st_mtime_ns for path in folder.iterdir())
    return (len(times) - 1) / (times[-1] - times[0]) * 1e9


def main() -> None:
    """Prints a table: a row for each mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=300)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--matplotlib', help='folder with matplotlib 3.10, for mmpretrain')
    parser.add_argument('--modes', nargs='+', default=['original', 'transformed', 'pipeline'])
    args = parser.parse_args()
    print(f'{args.images} photographs of 500×375, {args.workers} worker; {machine()}')
    print('\n| mode | vistool, images/s | mmpretrain, images/s | faster |\n| --- | ---: | ---: | ---: |')
    script = their_folder() / 'tools' / 'visualization' / 'browse_dataset.py'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = str(make_photos(folder, args.images))
        for mode in args.modes:
            ours, theirs = [], []
            for number in range(args.rounds):
                command = [str(OURS), config, '-m', mode, '--workers', str(args.workers)]
                ours.append(rate(command, folder / f'ours_{mode}_{number}'))
                if mode == 'original' or args.matplotlib:
                    command = [str(script), config, '-m', mode, '--not-show']
                    theirs.append(rate(command, folder / f'theirs_{mode}_{number}', args.matplotlib))
            line = f'| {mode} | {statistics.median(ours):.1f} '
            if theirs:
                ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
                line += f'| {statistics.median(theirs):.1f} | {ratio:.1f} × |'
            print(line if theirs else line + '| fails | |', flush=True)


if __name__ == '__main__':
    main()
