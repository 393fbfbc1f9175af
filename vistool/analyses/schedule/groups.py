"""The parameter groups that training would have, through the config's own optimizer-wrapper constructor."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from vistool.analyses.schedule.scopes import cheapest_scope, in_scope, types_of
from vistool.errors import InputError
from vistool.models.configs.resolving import Source

# Wrappers that need a GPU or a process group; what they change (precision, sharding) is nothing a schedule sees.
_WRAPPERS = ('OptimWrapper', 'AmpOptimWrapper', 'ApexOptimWrapper', 'DeepSpeedOptimWrapper')


@dataclass(frozen=True)
class Group:
    """One group of parameters, before the first step.

    Attributes:
        settings: Its hyper-parameters as the optimizer holds them, without the parameters.
        names: Names of its parameters; empty where the model was not needed.
        size: How many numbers those hold; 0 where the model was not needed.
    """

    settings: Mapping[str, Any]
    names: tuple[str, ...] = ()
    size: int = 0


@dataclass(frozen=True)
class OptimizerPlan:
    """An optimizer's groups.

    Attributes:
        name: Its key among several optimizers; ``''`` for the only one.
        kind: Name of its class.
        defaults: Its defaults, as ``torch.optim.Optimizer`` keeps them.
        groups: Its groups, in order.
    """

    name: str
    kind: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()


def read_optimizers(source: Source) -> list[OptimizerPlan]:
    """The optimizers and groups of a config. The model is built, without weights, only where the groups depend on it.

    Raises:
        InputError: If something of it cannot be built here.
    """
    settings = _portable(source.config.optim_wrapper)
    if settings.get('constructor') or settings.get('paramwise_cfg'):
        return _through_the_model(source, settings)
    if not isinstance(settings.get('optimizer'), Mapping):
        raise InputError(
            f'{source.name} has an optim_wrapper with neither an optimizer nor a constructor', parameter='config'
        )
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import OPTIMIZERS

    with cheapest_scope(source.config, OPTIMIZERS, settings['optimizer']) as optimizer:
        whole = {**settings, 'optimizer': optimizer}
        wrapper = _built(source, 'optimizer', lambda: build_optim_wrapper(torch.nn.Linear(1, 1, bias=False), whole))
    return [_plan('', wrapper.optimizer, {})]


def _through_the_model(source: Source, settings: dict[str, Any]) -> list[OptimizerPlan]:
    from mmengine.optim import OptimWrapperDict, build_optim_wrapper

    from vistool.analyses.schedule.bare_model import build_bare

    model = build_bare(source)
    with in_scope(source.config):
        wrapper = _built(source, 'optim_wrapper', lambda: build_optim_wrapper(model, settings))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if isinstance(wrapper, OptimWrapperDict):
        return [_plan(name, each.optimizer, names) for name, each in wrapper.items()]
    return [_plan('', wrapper.optimizer, names)]


def _built(source: Source, what: str, build: Any) -> Any:
    try:
        return build()
    except Exception as error:  # constructors and optimizers are foreign code
        reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
        kinds = ', '.join(str(kind) for kind in types_of(source.config.optim_wrapper.get('optimizer')))
        raise InputError(
            f'the {what} ({kinds}) of {source.name} cannot be built: {reason}',
            hint='check its name and settings, or install its package',
            parameter='config',
        ) from error


def _portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same wrapper without what only a GPU or a cluster can build."""
    plain: dict[str, Any] = {key: copy.deepcopy(value) for key, value in settings.items() if value is not None}
    kind = plain.get('type', 'OptimWrapper')
    name = (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
    if name in _WRAPPERS and plain.get('optimizer'):
        kept = ('optimizer', 'constructor', 'paramwise_cfg')
        plain = {'type': 'OptimWrapper', **{key: plain[key] for key in kept if key in plain}}
    optimizer = plain.get('optimizer')
    if isinstance(optimizer, Mapping) and optimizer.get('type') == 'ZeroRedundancyOptimizer':
        inner = dict(optimizer)
        inner['type'] = inner.pop('optimizer_type')
        plain['optimizer'] = inner
    return plain


def _plan(name: str, optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> OptimizerPlan:
    groups = []
    for each in optimizer.param_groups:
        members = each['params'] if names else []
        settings = {key: value for key, value in each.items() if key != 'params'}
        known = tuple(names.get(id(parameter), '') for parameter in members)
        groups.append(Group(settings, known, sum(parameter.numel() for parameter in members)))
    return OptimizerPlan(name, type(optimizer).__name__, dict(optimizer.defaults), tuple(groups))
