"""What one vis_lr costs, whole process, against mmpretrain's vis_scheduler.py: CPU seconds, wall time and memory."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import machine, ratio

from vistool.models.configs import package_folder

CONFIG = 'swin_transformer/swin-tiny_16xb64_in1k.py'
IMAGES, GPUS = '1281167', '16'
_OURS = Path(__file__).resolve().parents[1] / 'vis_lr.py'


def run(command: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak MiB of one process and its children."""
    environment = {**os.environ, 'MPLBACKEND': 'agg'}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'failed with {process.returncode}: {" ".join(command)}')
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Prints one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--config', default=CONFIG, help="below mmpretrain's configs")
    args = parser.parse_args()
    upstream = package_folder('mmpretrain')
    if upstream is None:
        raise SystemExit('mmpretrain is not installed')
    tool = upstream / 'tools/visualization/vis_scheduler.py'
    with tempfile.TemporaryDirectory() as folder:
        common = ['--dataset-size', IMAGES, '--ngpus', GPUS, '--not-show', '--save-path', f'{folder}/lr.png']
        config = str(upstream / 'configs' / args.config)
        options = ['--cfg-options', f'work_dir={folder}/work']
        commands = {
            'vistool': [sys.executable, str(_OURS), config, *common],
            'mmpretrain': [sys.executable, str(tool), config, *common, *options],
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for number in range(args.rounds + 1):  # the first round warms the disk's cache and is not counted
            for name, command in commands.items():
                measured = run(command)
                if number:
                    found[name].append(measured)
    print(f'{args.config}, {IMAGES} images, {GPUS} GPUs; {machine()}, {args.rounds} interleaved rounds\n')
    print('| | CPU s | wall s | peak MiB |\n| --- | ---: | ---: | ---: |')
    for name, rows in found.items():
        cpu, wall, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f'| {name} | {cpu:.2f} | {wall:.2f} | {memory:.0f} |')
    seconds = {name: [row[0] for row in rows] for name, rows in found.items()}
    print(f'\nvistool takes {ratio(seconds, "vistool", "mmpretrain"):.2f} × the CPU time')


if __name__ == '__main__':
    main()
