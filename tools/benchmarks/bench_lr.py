"""What one vis_lr costs, whole process, against mmpretrain's vis_scheduler.py: CPU seconds, wall time and memory.

Before anything is timed, the rates that both draw are compared, one by one.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from processes import alternate, cpu_ratio, middle, run
from timing import machine

from vistool.models.configs import package_folder

CONFIG = 'swin_transformer/swin-tiny_16xb64_in1k.py'
GPUS = 16
IMAGES = 1251 * 64 * GPUS
"""Whole batches: vis_scheduler leaves out an epoch's last batch where it is not full, which the Runner trains on."""
_OURS = Path(__file__).resolve().parents[1] / 'vis_lr.py'
_RECORD = """
import runpy, sys
import numpy as np

tool, out, *words = sys.argv[1:]
sys.argv = [tool, *words]
main = runpy.run_path(tool)['main']
main.__globals__['plot_curve'] = lambda rates, *others: np.save(out, rates)
main()
"""
"""Runs vis_scheduler as it is, and keeps the rates that it would draw."""


def commands(folder: Path, config: str = CONFIG) -> tuple[list[str], list[str]]:
    """The words that run vis_lr and those that run vis_scheduler.

    Args:
        folder: Where their files go.
        config: A config below mmpretrain's.

    Raises:
        SystemExit: mmpretrain is not installed.
    """
    upstream = package_folder('mmpretrain')
    if upstream is None:
        raise SystemExit('mmpretrain is not installed')
    words = [str(upstream / 'configs' / config), '--dataset-size', str(IMAGES), '--ngpus', str(GPUS)]
    theirs = [str(upstream / 'tools/visualization/vis_scheduler.py'), *words, '--not-show']
    theirs += ['--save-path', f'{folder}/theirs.png', '--cfg-options', f'work_dir={folder}/work']
    return [str(_OURS), *words, '--save-path', f'{folder}/ours.png'], theirs


def apart(folder: Path, config: str = CONFIG) -> float:
    """The largest difference between the rates of the first parameter group, relative to theirs.

    Args:
        folder: Where their files go.
        config: A config below mmpretrain's.

    Raises:
        SystemExit: They draw different numbers of iterations.
    """
    ours, (tool, *words) = commands(folder, config)
    run([*ours, '--save-raw'])
    run(['-c', _RECORD, tool, f'{folder}/theirs.npy', *words])
    expected = np.load(folder / 'theirs.npy')
    curves: dict[str, list[float]] = {}
    with (folder / 'ours.csv').open(encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            curves.setdefault(row['group'], []).append(float(row['value']))
    lengths = sorted({len(rates) for rates in curves.values()})
    if lengths != [len(expected)]:
        raise SystemExit(f'vis_lr draws {lengths} iterations, vis_scheduler {len(expected)}')
    # vis_scheduler has a network of one layer, whose groups have no multipliers
    return min(float(np.max(np.abs(np.array(rates) - expected) / expected)) for rates in curves.values())


def main() -> None:
    """Prints one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--config', default=CONFIG, help="below mmpretrain's configs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = commands(Path(name), args.config)
        most = apart(Path(name), args.config)
        if not most <= 1e-9:
            raise SystemExit(f'the rates differ by {most:.1e}')
        found = alternate({'vistool': lambda: run(ours), 'mmpretrain': lambda: run(theirs)}, args.rounds)
    print(f'{args.config}, {IMAGES} images, {GPUS} GPUs; {machine()}, {args.rounds} interleaved rounds')
    print(f'the rates differ by at most {most:.1e}\n')
    print('| | CPU s | wall s | peak MiB |\n| --- | ---: | ---: | ---: |')
    for key, costs in found.items():
        cost = middle(costs)
        print(f'| {key} | {cost.cpu:.2f} | {cost.wall:.2f} | {cost.memory:.0f} |')
    print(f'\nvistool takes {cpu_ratio(found, "vistool", "mmpretrain"):.2f} × the CPU time')


if __name__ == '__main__':
    main()
