"""How much two equal runs differ over threads, batch sizes and instruction sets: where vis_diff's defaults come from.

    python tools/checks/noise.py demo/dataset configs/efficientnet_lite/efficientnet-lite0_in1k.py demo://efficientnet-lite0

Each variant is a process of its own. Instruction sets stand for other machines: the kernels that PyTorch and oneDNN
choose on an older CPU round in another order.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from vistool.runs.differences import RunDifference, compare_runs

ROOT = Path(__file__).parents[2]
VARIANTS: Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]] = {
    'again': ({}, ()),
    'one thread': ({'OMP_NUM_THREADS': '1'}, ()),
    'four threads': ({'OMP_NUM_THREADS': '4'}, ()),
    'batch 1': ({}, ('--batch-size', '1')),
    'batch 3': ({}, ('--batch-size', '3')),
    'PyTorch without AVX': ({'ATEN_CPU_CAPABILITY': 'default'}, ()),
    'oneDNN with AVX2': ({'ONEDNN_MAX_CPU_ISA': 'AVX2'}, ()),
    'oneDNN with SSE4.1': ({'ONEDNN_MAX_CPU_ISA': 'SSE41'}, ()),
    'GPU': ({}, ('--device', 'cuda')),
}
"""Environment and options of each variant; the first run has two threads and batches of eight."""


def main() -> int:
    """Runs the variants and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('words', nargs='+', help='img, config, checkpoint')
    parser.add_argument('--tool', default='vis_cam', help='vis_cam (default), vis_attention, vis_featmap')
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        first = _run(args.tool, [*args.words, *options], folder / 'first', {}, ())
        print(f'{"variant":<22}{"score":>10}{"mass":>10}{"1 - rank":>10}{"1 - iou":>10}{"flips":>7}')
        for name, (environment, more) in VARIANTS.items():
            if 'cuda' in more and not torch.cuda.is_available():
                continue
            found = compare_runs(first, _run(args.tool, [*args.words, *options], folder / name, environment, more))
            print(f'{name:<22}{_line(found)}', flush=True)
    return 0


def _run(tool: str, words: list[str], out: Path, environment: Mapping[str, str], more: tuple[str, ...]) -> Path:
    command = [sys.executable, str(ROOT / f'tools/{tool}.py'), *words, *more, '--save-raw', '-o', str(out)]
    subprocess.run(command, check=True, env={**os.environ, 'OMP_NUM_THREADS': '2', **environment}, capture_output=True)
    return out


def _line(found: RunDifference) -> str:
    """The largest changes; a dash for what the runs have not."""
    maps = [item for item in found.maps if item.paired]
    columns = [
        [image.score for image in found.images],
        [item.mass for item in maps],
        [1 - item.rank for item in maps],
        [1 - item.iou for item in maps],
    ]
    numbers = (max((each for each in column if math.isfinite(each)), default=None) for column in columns)
    told = ''.join(f'{"–" if number is None else f"{number:.1e}":>10}' for number in numbers)
    return f'{told}{sum(image.flipped for image in found.images):>7}'


if __name__ == '__main__':
    sys.exit(main())
