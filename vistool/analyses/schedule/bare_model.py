"""A config's model without weights, downloads or noise: only the names and shapes of its parameters."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vistool.analyses.schedule.scopes import in_scope
from vistool.errors import InputError, param
from vistool.models.configs.resolving import Source, require_model

# Networks read numbers out of these while they are built (drop-path rates, indices); the meta device holds none.
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
    """Tensors made inside have no storage, except the few whose values decide about a network's shape."""
    with torch.device('meta'), _ValuesOnCpu():
        yield


_WITHOUT_GROUPS = (
    f'draw without groups: {param("options")} optim_wrapper.paramwise_cfg=None optim_wrapper.constructor=None'
)


class _Offline(OSError):
    """A connection that was not made."""


def build_bare(source: Source) -> nn.Module:
    """The config's model on the meta device.

    Raises:
        InputError: If it cannot be built, or would have to download something first.
    """
    settings = _untrained(require_model(source))
    if source.config.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', source.config.data_preprocessor)
    with in_scope(source.config), _offline():
        from mmengine.registry import MODELS

        try:
            try:
                with without_weights():
                    return MODELS.build(copy.deepcopy(settings))
            except NotImplementedError as error:
                if 'meta tensor' not in str(error):
                    raise
                return MODELS.build(settings)  # it sets weights while it is built (LoRA does), so there have to be some
        except Exception as error:  # models are foreign code
            raise _explain(source, error) from error


def _untrained(settings: Any) -> Any:
    """The same model without checkpoints to start from; some networks load theirs while they are built."""
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
    """Nobody expects a command that draws a curve to fetch gigabytes, so connections are refused inside."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise _Offline('no connection is made for a schedule')

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
    reason = f'{type(error).__name__}: {" ".join(str(error).split())[:160]}'
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
