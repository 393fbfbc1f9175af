"""Config → network, through the registries."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from vistool.errors import InputError, param
from vistool.models.configs.resolving import Source, require_model


def build_module(source: Source, seed: int = 0) -> nn.Module:
    """Builds the network of a config through the registry of its ``default_scope``, with random weights.

    Raises:
        InputError: If the config has no model or the model cannot be built.
    """
    from mmengine.registry import MODELS, DefaultScope

    import vistool.registry  # noqa: F401  brings in vistool's own models

    config = source.config
    spec = require_model(source).copy()
    if config.get('data_preprocessor') is not None:
        spec.setdefault('data_preprocessor', config.data_preprocessor)
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmengine'), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        try:
            apart = None if _takes_preprocessor(spec['type']) else spec.pop('data_preprocessor', None)
            module = MODELS.build(spec)
            if apart is not None:
                module.data_preprocessor = MODELS.build({'type': 'mmpretrain.ClsDataPreprocessor', **apart})
            return module
        except (
            KeyError,
            TypeError,
            ValueError,
            AssertionError,
            ImportError,
            AttributeError,
            FileNotFoundError,
        ) as error:
            reason = ' '.join(str(error).split())[:300]
            raise InputError(
                f'the model of {source.name} cannot be built: {type(error).__name__}: {reason}',
                hint=f'check its «model» and {param("options")}',
                parameter='config',
            ) from error


def _takes_preprocessor(kind: Any) -> bool:
    """Whether a model class can be given a data preprocessor; a user's plain ``nn.Module`` mostly cannot."""
    from mmengine.registry import MODELS

    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    if not isinstance(kind, type):
        return True  # unknown, which building it will tell, or a function
    parameters = inspect.signature(kind).parameters
    named = 'data_preprocessor' in parameters
    return named or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
