"""Schedulers of plain torch code: stepped on a copy whose parameters hold nothing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError, check_count, close_matches
from vistool.results import Curve, Curves

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

_MOST_STEPS = 100_000_000
_FIELDS = {'lr': 'lr', 'momentum': 'momentum', 'wd': 'weight_decay', 'betas': 'betas'}


def plain_curves(scheduler: LRScheduler, steps: int | None, parameters: Sequence[str]) -> Curves:
    """What a scheduler will do from now on; it and its optimizer stay as they are.

    Args:
        scheduler: A scheduler of :mod:`torch.optim.lr_scheduler`, or a subclass.
        steps: How many of its steps are drawn.
        parameters: ``lr``, ``momentum``, ``wd``, ``betas`` or ``all``.

    Returns:
        Curves with the value during each step, counted from 0; groups that never differ are one.

    Raises:
        InputError: The number of steps is missing, the scheduler needs a metric, or a parameter is unknown.
    """
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    kind = type(scheduler).__name__
    if isinstance(scheduler, ReduceLROnPlateau):
        raise InputError(f'{kind} follows a metric, which is not known before the run', parameter='config')
    if steps is None:
        hint = 'a scheduler does not know how long the run is: vistool.Schedule(steps=…)'
        raise InputError('needed for a scheduler without a config', hint=hint, parameter='steps')
    check_count(steps, 1, _MOST_STEPS, 'steps')
    groups = scheduler.optimizer.param_groups
    known = [name for name, key in _FIELDS.items() if any(key in group for group in groups)]
    asked = [parameters] if isinstance(parameters, str) else list(parameters)
    wanted = known if 'all' in asked else asked
    for name in wanted:
        if name not in known:
            accepted = ', '.join([*known, 'all'])
            raise InputError(f'no {name!r}', accepted=accepted, hint=close_matches(name, known), parameter='parameters')
    values = _stepped(scheduler, steps, [_FIELDS[name] for name in wanted])
    names = [str(group.get('name', f'group {number}')) for number, group in enumerate(groups)]
    curves: list[Curve] = []
    for parameter, table in zip(wanted, values, strict=True):
        same = bool((table == table[:, :1]).all())
        for number, name in enumerate(['all'] if same else names):
            label = '' if same else name
            curves.append(Curve(np.arange(steps), table[:, number], kind, name, parameter, None, label))
    first, last = curves[0].values[0], curves[0].values[-1]
    return Curves(
        tuple(curves), {}, kind, f'{steps:,} steps · {wanted[0]} from {first:.3g} to {last:.3g}', x_label='step'
    )


def _stepped(scheduler: LRScheduler, steps: int, keys: Sequence[str]) -> list[NDArray[np.float64]]:
    """The values ``(steps, groups)`` of each key while a copy of the scheduler steps."""
    import torch

    optimizer = scheduler.optimizer
    # what is copied with the scheduler: no weights, no state of the optimizer
    memo: dict[int, object] = {
        id(each): torch.nn.Parameter(torch.empty(0)) for group in optimizer.param_groups for each in group['params']
    }
    memo[id(optimizer.state)] = {}
    own = copy.deepcopy(scheduler, memo)
    tables = [np.empty((steps, len(optimizer.param_groups))) for _ in keys]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of steps before the optimizer's
        for step in range(steps):
            for table, key in zip(tables, keys, strict=True):
                table[step] = [_number(group.get(key)) for group in own.optimizer.param_groups]
            own.step()
    return tables


def _number(value: object) -> float:
    """A setting as one number; of betas, the first."""
    first = value[0] if isinstance(value, (tuple, list)) else value
    return float('nan') if first is None else float(first)  # type: ignore[arg-type]
