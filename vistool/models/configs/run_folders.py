"""The folder of a training run: which config it ran with, and which of its checkpoints to use."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from vistool.errors import InputError

log = logging.getLogger('vistool')

SUFFIXES = ('.py', '.json', '.yaml', '.yml')
"""What a config file's name may end with."""

SHOWN = 8
"""How many configs or runs an error lists."""


def find_run(folder: Path) -> tuple[Path, str | None]:
    """The config file of a run and its checkpoint, None before the first was written.

    The config is the one mmengine dumped into the folder, else into the newest ``<time>/vis_data``.

    Raises:
        InputError: If ``folder`` holds no run; it lists the configs or runs that are in it instead.
    """
    configs = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    dumped = sorted(folder.glob('vis_data/config.py')) + sorted(folder.glob('*/vis_data/config.py'))
    checkpoint = find_checkpoint(folder)
    if not (checkpoint or dumped):
        raise _no_run(folder)
    if not configs and not dumped:
        raise InputError(
            f'{folder} has checkpoints but no config', hint='give the config file itself', parameter='config'
        )
    if not configs:
        return dumped[-1], checkpoint
    name = folder.resolve().name
    config = max(configs, key=lambda path: (path.stem == name, path.stat().st_mtime, path.name))
    if len(configs) > 1:
        log.warning('%s holds %d configs; using %s', folder, len(configs), config.name)
    return config, checkpoint


def find_checkpoint(folder: Path) -> str | None:
    """A run's checkpoint: its best, else the one that ``last_checkpoint`` names, else its last; None without any."""
    weights = list(folder.glob('*.pth'))
    best = [path for path in weights if path.name.startswith('best_')]
    if best:
        return str(max(best, key=_age))
    pointer = folder / 'last_checkpoint'
    if pointer.is_file():
        target = Path(pointer.read_text(encoding='utf-8').strip())
        for path in (target, folder / target.name):  # the folder may have moved since the run
            if path.is_file():
                return str(path)
    return str(max(weights, key=_age)) if weights else None


def _age(path: Path) -> tuple[int, float]:
    """Epoch or iteration, then time: copying a folder scrambles the times."""
    number = re.search(r'(?:epoch|iter)_(\d+)', path.stem)
    return int(number[1]) if number else -1, path.stat().st_mtime


def _no_run(folder: Path) -> InputError:
    runs = sorted({path.parent for path in folder.glob('*/*.pth')})
    runs = runs or sorted({path.parents[2] for path in folder.glob('*/*/vis_data/config.py')})
    if runs:
        return InputError(f'{folder} is not a run', accepted=f'one run: {_list(runs)}', parameter='config')
    configs = sorted(path for path in folder.rglob('*') if path.suffix in SUFFIXES)
    if configs:
        return InputError(
            f'{folder} is a folder of configs, not a run', accepted=f'one of them: {_list(configs)}', parameter='config'
        )
    return InputError(f'{folder} holds no run', accepted='a folder with a config and checkpoints', parameter='config')


def _list(paths: list[Path]) -> str:
    more = f' … ({len(paths)} in all)' if len(paths) > SHOWN else ''
    return ', '.join(map(str, paths[:SHOWN])) + more
