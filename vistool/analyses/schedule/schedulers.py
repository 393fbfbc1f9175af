"""A config's schedulers, built as mmengine's Runner builds them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from vistool.analyses.schedule.run import Run
from vistool.analyses.schedule.scopes import cheapest_scope
from vistool.errors import InputError
from vistool.models.configs.resolving import Source

# Settings that may hold one value for each group; then groups cannot share.
_PER_GROUP = ('eta_max', 'min_value')
_PACKAGES = ('mmengine', 'mmpretrain')


def settings_of(source: Source, optimizer: str) -> list[dict[str, Any]]:
    """The scheduler settings that apply to one optimizer (``''``: the only one).

    Raises:
        InputError: If there are none, or they are no dicts.
    """
    found = source.config.get('param_scheduler')
    if not found:
        return []
    if isinstance(found, Mapping) and 'type' not in found:
        if optimizer not in found:
            known = ', '.join(map(str, found))
            raise InputError(
                f'{source.name} schedules {known}, but its optimizer is called {optimizer or "nothing"}',
                hint='give each optimizer its schedulers by its own name',
                parameter='config',
            )
        found = found[optimizer]
    listed = [found] if isinstance(found, Mapping) else list(found)
    for each in listed:
        if not isinstance(each, Mapping) or 'type' not in each:
            raise InputError(f'{source.name} has a param_scheduler without a type: {each!r}', parameter='config')
    return [dict(copy.deepcopy(each)) for each in listed]


def build(source: Source, settings: Sequence[Mapping[str, Any]], run: Run, optimizer: Any) -> list[Any]:
    """The schedulers of one optimizer.

    Raises:
        InputError: If one cannot be built; mmengine would stop there as well.
    """
    from mmengine.optim import scheduler as _  # noqa: F401  (registers mmengine's)
    from mmengine.registry import PARAM_SCHEDULERS

    built = []
    with cheapest_scope(source.config, PARAM_SCHEDULERS, list(settings)) as portable:
        for index, each in enumerate(portable):
            given = copy.deepcopy(dict(each))
            given.setdefault('end', run.epochs if given.get('by_epoch', True) else run.iterations)
            shared = {'optimizer': optimizer, 'epoch_length': run.epoch_length}
            try:
                built.append(PARAM_SCHEDULERS.build(given, default_args=shared))
            except Exception as error:  # schedulers may be foreign code
                reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
                raise InputError(
                    f'param_scheduler[{index}] of {source.name} ({_name(each)}) cannot be built: {reason}',
                    hint='mmengine would stop there as well; mend the config',
                    parameter='config',
                ) from error
    return built


def may_merge(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether equal groups stay equal: every scheduler is of a known package and has one value for all groups."""
    listed = any(isinstance(each.get(key), (list, tuple)) for each in settings for key in _PER_GROUP)
    return not listed and all(_known(each['type']) for each in settings)


def plateaus(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether some scheduler waits for a metric."""
    return any('ReduceOnPlateau' in _name(each) for each in settings)


def never_steps(settings: Sequence[Mapping[str, Any]], run: Run) -> bool:
    """Whether some scheduler counts epochs in a loop that has only one."""
    return not run.by_epoch and any(
        each.get('by_epoch', True) and not each.get('convert_to_iter_based') for each in settings
    )


def _known(kind: Any) -> bool:
    from mmengine.registry import PARAM_SCHEDULERS

    if not isinstance(kind, str):
        return kind.__module__.split('.')[0] in _PACKAGES
    return kind in PARAM_SCHEDULERS.module_dict or kind == 'CosineAnnealingWeightDecay'


def _name(settings: Mapping[str, Any]) -> str:
    kind = settings['type']
    return kind if isinstance(kind, str) else kind.__name__
