"""The parameter groups that training would have, through the config's own optimizer-wrapper constructor.

The model is built only where the groups depend on it: without weights, downloads or noise.
"""

from __future__ import annotations

import copy
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vistool.analyses.schedule.scopes import cheapest_scope, numbers_as_text, training_scope, type_name, types_of
from vistool.errors import InputError, cause_of, close_matches, param
from vistool.models.configs import Source, require_model

# Networks read values from these while they are built (drop-path rates, indices); the meta device has none.
_WITH_VALUES = {torch.linspace, torch.arange, torch.tensor, torch.as_tensor, torch.meshgrid}


class _ValuesOnCpu(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _WITH_VALUES and func is not torch.meshgrid:
            options.setdefault('device', 'cpu')
        return func(*args, **options)


@contextmanager
def without_weights() -> Iterator[None]:
    """Tensors created inside have no storage, except the few whose values determine a network's shape."""
    with torch.device('meta'), _ValuesOnCpu():
        yield


_WITHOUT_GROUPS = (
    f'draw without groups: {param("options")} optim_wrapper.paramwise_cfg=None optim_wrapper.constructor=None'
)


class _Offline(OSError):
    """A connection that was refused."""


def build_bare(source: Source) -> nn.Module:
    """The config's model on the meta device.

    Raises:
        InputError: It cannot be built, or would have to download something first.
    """
    settings = _untrained(require_model(source))
    if source.config.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', source.config.data_preprocessor)
    with training_scope(source.config), _offline():
        from mmengine.registry import MODELS

        try:
            try:
                with without_weights():
                    return MODELS.build(copy.deepcopy(settings))
            except NotImplementedError as error:
                if 'meta tensor' not in str(error):
                    raise
                return MODELS.build(settings)  # it sets weights while it is built, as LoRA does, so they must exist
        except Exception as error:  # a model is foreign code, which can raise anything
            raise _explain(source, error) from error


def _untrained(settings: Any) -> Any:
    """The same model without pretrained checkpoints, which some networks load while they are built."""
    if isinstance(settings, dict):
        kept = {key: value for key, value in settings.items() if not _loads(key, value)}
        return type(settings)({key: _untrained(value) for key, value in kept.items()})
    if isinstance(settings, (list, tuple)):
        return type(settings)(_untrained(value) for value in settings)
    return settings


def _loads(key: str, value: Any) -> bool:
    listed = value if isinstance(value, (list, tuple)) else [value]
    return key == 'init_cfg' and any(isinstance(each, dict) and each.get('type') == 'Pretrained' for each in listed)


@contextmanager
def _offline() -> Iterator[None]:
    """Refuses connections inside: a command that draws a curve must not download gigabytes."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise _Offline('a schedule makes no connection')

    switches = ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE')
    before = {name: os.environ.get(name) for name in switches}
    connect, lookup = socket.socket.connect, socket.getaddrinfo
    os.environ.update(dict.fromkeys(switches, '1'))
    socket.socket.connect, socket.getaddrinfo = refuse, refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect, socket.getaddrinfo = connect, lookup  # type: ignore[method-assign]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _explain(source: Source, error: Exception) -> InputError:
    reason = cause_of(error)
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, _Offline) or 'offline' in str(chain).lower() or 'connect' in str(chain).lower():
            return InputError(
                f'the parameter groups of {source.name} depend on its model, which needs a download ({reason})',
                hint=f'fetch it first, or {_WITHOUT_GROUPS}',
                parameter='config',
            )
        chain = chain.__cause__ or chain.__context__
    return InputError(
        f'the parameter groups of {source.name} depend on its model, which cannot be built here ({reason})',
        hint=_WITHOUT_GROUPS,
        parameter='config',
    )


# Wrappers that need a GPU or a process group; what they change (precision, sharding) does not affect a schedule.
_WRAPPERS = ('OptimWrapper', 'AmpOptimWrapper', 'ApexOptimWrapper', 'DeepSpeedOptimWrapper')


@dataclass(frozen=True)
class Group:
    """One group of parameters, before the first step.

    Attributes:
        settings: Its hyper-parameters as the optimizer holds them, without the parameters.
        names: Names of its parameters; empty if the model was not needed.
        size: How many numbers those hold; 0 if the model was not needed.
    """

    settings: Mapping[str, Any]
    names: tuple[str, ...] = ()
    size: int = 0


@dataclass(frozen=True)
class OptimizerPlan:
    """An optimizer's groups.

    Attributes:
        name: Its key among several optimizers; ``''`` for a single one.
        kind: The name of its class.
        defaults: Its defaults, as ``torch.optim.Optimizer`` keeps them.
        groups: Its groups, in order.
    """

    name: str
    kind: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()


def read_optimizers(source: Source) -> list[OptimizerPlan]:
    """The optimizers and groups of a config. The model is built, without weights, only if the groups depend on it.

    Raises:
        InputError: Something in it cannot be built here.
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

    model = build_bare(source)
    with training_scope(source.config):
        wrapper = _built(source, 'optim_wrapper', lambda: build_optim_wrapper(model, settings))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if isinstance(wrapper, OptimWrapperDict):
        return [_plan(name, each.optimizer, names) for name, each in wrapper.items()]
    return [_plan('', wrapper.optimizer, names)]


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Lets optimizers be made without importing ``torch._dynamo``, which takes longer than ``import torch``.

    ``torch/_compile.py`` imports it when ``add_param_group`` is first called, to keep it from compiling that method. As
    long as nothing else has imported it, there is nothing to keep it from.
    """
    method = getattr(torch.optim.Optimizer.add_param_group, '__wrapped__', None)
    if method is None or 'torch._dynamo' in sys.modules or hasattr(method, _UNCOMPILED):
        yield
        return
    setattr(method, _UNCOMPILED, method)
    try:
        yield
    finally:
        delattr(method, _UNCOMPILED)


_UNCOMPILED = '__dynamo_disable'


def _built(source: Source, what: str, build: Any) -> Any:
    try:
        with _without_compiler():
            return build()
    except Exception as error:  # constructors and optimizers are foreign code, which can raise anything
        kinds = ', '.join(str(kind) for kind in types_of(source.config.optim_wrapper.get('optimizer')))
        raise InputError(
            f'the {what} ({kinds}) of {source.name} cannot be built: {cause_of(error)}',
            hint=numbers_as_text(source.config.optim_wrapper, 'optim_wrapper')
            or 'check its name and settings, or install its package',
            parameter='config',
        ) from error


def _portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same wrapper without the parts that need a GPU or a cluster."""
    plain: dict[str, Any] = {key: copy.deepcopy(value) for key, value in settings.items() if value is not None}
    kind = plain.get('type', 'OptimWrapper')
    if type_name(kind) in _WRAPPERS and plain.get('optimizer'):
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


Reader = Callable[[Mapping[str, Any]], float]
"""Reads one parameter off a group's settings."""
PARAMETERS = ('lr', 'momentum', 'wd', 'betas', 'all')
"""The names that users type."""


def _momentum(group: Mapping[str, Any]) -> float:
    # mmengine's momentum schedulers store Adam's first beta under this name
    return group['momentum'] if 'momentum' in group else group['betas'][0]


def _setting(name: str) -> Reader:
    return lambda group: group[name]


_READERS: dict[str, Reader] = {
    'momentum': _momentum,
    'beta1': lambda group: group['betas'][0],
    'beta2': lambda group: group['betas'][1],
}
_MEANING = {'lr': ('lr',), 'momentum': ('momentum',), 'wd': ('weight_decay',), 'betas': ('beta1', 'beta2')}


def check_parameters(names: Sequence[str], scheduled: Sequence[str] = ()) -> None:
    """Checks that each name is in :data:`PARAMETERS` or is the ``param_name`` of a scheduler.

    Raises:
        InputError: A name is unknown; the error lists those that are accepted.
    """
    accepted = [*PARAMETERS, *scheduled]
    for name in names:
        if name not in accepted:
            raise InputError(
                f'unknown parameter {name!r}',
                accepted=', '.join(accepted),
                hint=close_matches(name, accepted),
                parameter='parameters',
            )


def parameter_readers(names: Sequence[str], plan: OptimizerPlan) -> dict[str, Reader]:
    """What to record from an optimizer's groups.

    Args:
        names: As typed; ``all`` stands for rate, momentum or betas, and weight decay, as far as the optimizer has them.
        plan: The optimizer.

    Raises:
        InputError: The optimizer lacks one that was requested by name.
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
