"""Which parameters of the optimizer to draw, and how to read each off a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vistool.analyses.schedule.groups import OptimizerPlan
from vistool.analyses.schedule.replay import Reader
from vistool.errors import InputError, close_matches

NAMES = ('lr', 'momentum', 'wd', 'betas', 'all')
"""The names people type."""


def _momentum(group: Mapping[str, Any]) -> float:
    # mmengine's momentum schedulers keep Adam's first beta under this name
    return group['momentum'] if 'momentum' in group else group['betas'][0]


def _setting(name: str) -> Reader:
    return lambda group: group[name]


_READERS: dict[str, Reader] = {
    'momentum': _momentum,
    'beta1': lambda group: group['betas'][0],
    'beta2': lambda group: group['betas'][1],
}
_MEANING = {'lr': ('lr',), 'momentum': ('momentum',), 'wd': ('weight_decay',), 'betas': ('beta1', 'beta2')}


def check(names: Sequence[str], scheduled: Sequence[str] = ()) -> None:
    """Refuses a name that is neither one of :data:`NAMES` nor what some scheduler's ``param_name`` says.

    Raises:
        InputError: With the names that are accepted.
    """
    accepted = [*NAMES, *scheduled]
    for name in names:
        if name not in accepted:
            raise InputError(
                f'unknown parameter {name!r}',
                accepted=', '.join(accepted),
                hint=close_matches(name, accepted),
                parameter='parameters',
            )


def readers(names: Sequence[str], plan: OptimizerPlan) -> dict[str, Reader]:
    """What to record of an optimizer's groups.

    Args:
        names: As typed; ``all`` stands for the rate, momentum or betas, and weight decay, where the optimizer has them.
        plan: The optimizer.

    Raises:
        InputError: If the optimizer lacks one that was asked for by name.
    """
    own = [name for name in ('lr', 'momentum', 'betas', 'wd') if _has(plan, name)]
    found: dict[str, Reader] = {}
    for name in names:
        if name == 'all' and 'betas' in own:
            wanted = [each for each in own if each != 'momentum']  # momentum is the first beta
        else:
            wanted = own if name == 'all' else [name]
        for each in wanted:
            if not _has(plan, each):
                raise InputError(f'{plan.kind} has no {each}', accepted=', '.join(own), parameter='parameters')
            for part in _MEANING.get(each, (each,)):
                found[part] = _READERS.get(part, _setting(part))
    return found


def _has(plan: OptimizerPlan, name: str) -> bool:
    settings = {**plan.defaults, **(plan.groups[0].settings if plan.groups else {})}
    keys = {'momentum': ('momentum', 'betas'), 'wd': ('weight_decay',)}.get(name, (name,))
    return any(isinstance(settings.get(key), (int, float, tuple, list)) for key in keys)
