"""Pictures for mmengine's ``vis_backends`` as well: TensorBoard, Weights & Biases, MLflow and the others."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vistool.errors import InputError, close_matches

_SUFFIX = 'VisBackend'


def open_backends(names: Sequence[str], out: Path, config: Any = None, rank: int = 0, world: int = 1) -> list[Any]:
    """Mmengine's backends by name.

    Args:
        names: ``tensorboard``, ``wandb``, ``mlflow``, ``local`` … : whatever is registered, without «VisBackend».
        out: The run's output; they keep their files in ``vis_data`` in it (beside it, where it is one file).
        config: Where its ``visualizer.vis_backends`` or ``vis_backends`` has an entry for a backend, its settings are
            used.
        rank: Number of this process; each has a sub-folder of its own where there are several.
        world: How many processes there are.

    Raises:
        InputError: A name is unknown, or the backend's package is missing or refuses to start.
    """
    if not names:
        return []
    from mmengine.registry import VISBACKENDS

    known = {_short(name): name for name in VISBACKENDS.module_dict}
    folder = (out.parent if out.suffix else out) / 'vis_data'
    opened = []
    for name in names:
        kind = known.get(_short(name))
        if kind is None:
            listed = ', '.join(sorted(known))
            hint = close_matches(_short(name), known)
            raise InputError(f'unknown backend {name!r}', accepted=listed, hint=hint, parameter='backends')
        settings = {'save_dir': str(folder / f'rank{rank}' if world > 1 else folder), **_settings(config, kind)}
        try:
            backend = VISBACKENDS.build({**settings, 'type': kind})
            _ = backend.experiment  # starts it: what is missing is said now
        except Exception as error:
            with contextlib.suppress(OSError):
                Path(settings['save_dir']).rmdir()  # it makes its folder first
            package = isinstance(error, ImportError)
            raise InputError(
                f'{name}: its package cannot be imported' if package else f'{name} cannot be started: {error}',
                hint=f'pip install {_short(name)}' if package else '',
                parameter='backends',
            ) from error
        opened.append(backend)
    return opened


def _short(name: str) -> str:
    return re.sub(_SUFFIX.lower() + '$', '', name.lower())


def _settings(config: Any, kind: str) -> dict[str, Any]:
    """What a config says of a backend, its place aside."""
    if config is None:
        return {}
    visualizer = config.get('visualizer')
    entries = list((visualizer.get('vis_backends') if isinstance(visualizer, Mapping) else None) or [])
    for entry in [*entries, *(config.get('vis_backends') or [])]:
        if isinstance(entry, Mapping) and str(entry.get('type')).rpartition('.')[2] == kind:
            return {key: value for key, value in entry.items() if key not in ('type', 'save_dir', '_scope_')}
    return {}
