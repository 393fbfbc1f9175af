"""Registries under a config's own default scope, entered only where a name needs it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vistool.config import PACKAGES
from vistool.errors import InputError

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
            argument='config',
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
def cheapest_scope(config: Config, registry: Registry, types: Iterable[Any]) -> Iterator[None]:
    """The config's scope, or mmengine's own where that gives the same without importing the scope's package.

    mmengine knows the plain names (SGD, LinearLR …) itself, and no OpenMMLab package gives them another meaning;
    importing mmpretrain takes longer than everything else a plain schedule needs.
    """
    named = list(types)
    known = all(isinstance(kind, str) and '.' not in kind and kind in registry.module_dict for kind in named)
    if known and not config.get('custom_imports') and not registry.children:
        from mmengine.registry import DefaultScope

        with DefaultScope.overwrite_default_scope('mmengine'):
            yield
        return
    with in_scope(config):
        yield


def types_of(settings: Any) -> list[Any]:
    """Every ``type`` in nested settings; a ``_scope_`` counts as one that only the scope knows."""
    if isinstance(settings, Mapping):
        own = [settings['type']] if 'type' in settings else []
        own += [None] if settings.get('_scope_') else []
        return own + [kind for value in settings.values() for kind in types_of(value)]
    if isinstance(settings, (list, tuple)):
        return [kind for value in settings for kind in types_of(value)]
    return []
