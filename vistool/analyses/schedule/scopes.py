"""Registries under a config's own default scope, entered only where a name needs it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vistool.errors import InputError
from vistool.models.configs import PACKAGES

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.registry import Registry


@contextmanager
def in_scope(config: Config) -> Iterator[None]:
    """Registries resolve names as the config's training would, and mmengine logs nothing below an error.

    Raises:
        InputError: If the scope's package is not installed.
    """
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    scope = config.get('default_scope') or 'mmengine'
    if scope in PACKAGES and importlib.util.find_spec(scope) is None:
        raise InputError(
            f'the config needs the package {scope}, which is not installed',
            hint=f'pip install {PACKAGES[scope]}',
            parameter='config',
        )
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with DefaultScope.overwrite_default_scope(scope):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def cheapest_scope(config: Config, registry: Registry, settings: Any) -> Iterator[Any]:
    """Enters the config's scope, or mmengine's own where that gives the same without importing the scope's package.

    mmengine knows the plain names (SGD, LinearLR …) itself, and no OpenMMLab package gives them another meaning;
    importing mmpretrain takes longer than everything else a plain schedule needs.

    Args:
        config: The config.
        registry: mmengine's root registry of what is to be built.
        settings: What is to be built.

    Yields:
        The settings to build from.
    """
    known = all(isinstance(kind, str) and kind in registry.module_dict for kind in types_of(settings))
    scopes = {config.get('default_scope') or 'mmengine', *scopes_of(settings)}
    if known and scopes <= {'mmengine', *PACKAGES} and not config.get('custom_imports') and not registry.children:
        from mmengine.registry import DefaultScope

        with DefaultScope.overwrite_default_scope('mmengine'):
            yield _unscoped(settings)
        return
    with in_scope(config):
        yield settings


def types_of(settings: Any) -> list[Any]:
    """Every ``type`` in nested settings."""
    return _values_of(settings, 'type')


def scopes_of(settings: Any) -> list[Any]:
    """Every ``_scope_`` in nested settings: the package whose config they were taken from."""
    return _values_of(settings, '_scope_')


def _values_of(settings: Any, key: str) -> list[Any]:
    if isinstance(settings, Mapping):
        own = [settings[key]] if key in settings else []
        return own + [each for value in settings.values() for each in _values_of(value, key)]
    if isinstance(settings, (list, tuple)):
        return [each for value in settings for each in _values_of(value, key)]
    return []


def _unscoped(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {key: _unscoped(value) for key, value in settings.items() if key != '_scope_'}
    if isinstance(settings, (list, tuple)):
        return type(settings)(_unscoped(value) for value in settings)
    return settings
