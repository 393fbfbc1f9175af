"""What a real run logged: the learning rates in mmengine's ``scalars.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError

_ACCEPTED = 'vis_data/scalars.json of a run'


def read_log(path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps ``(N,)``, counted from 0 as the planned ones, and the rate of the first parameter group at each ``(N,)``.

    Raises:
        InputError: If it cannot be read or holds no rate.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'not text'
        raise InputError(f'{path} cannot be read: {reason}', accepted=_ACCEPTED, argument='--log') from error
    found: dict[int, float] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                continue  # a run that is still writing
            raise InputError(f'{path}, line {number}: no JSON', accepted=_ACCEPTED, argument='--log') from error
        rate = entry.get('lr') if isinstance(entry, dict) else None
        step = entry.get('step', entry.get('iter')) if rate is not None else None
        if isinstance(rate, (int, float)) and isinstance(step, int) and math.isfinite(rate):
            found[step - 1] = float(rate)  # mmengine counts the iteration that was done; a resumed run repeats some
    if not found:
        raise InputError(f'{path} holds no learning rate', accepted=_ACCEPTED, argument='--log')
    steps = np.array(sorted(found), dtype=np.int64)
    return steps, np.array([found[step] for step in steps.tolist()])
