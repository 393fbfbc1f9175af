"""Registries in the default scope of a config, entered only if a name needs it; names of types in configs."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vistool.errors import InputError
from vistool.models.configs import PACKAGES
from vistool.registry import in_scope, is_registered, scope_of

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.registry import Registry


@contextmanager
def training_scope(config: Config) -> Iterator[None]:
    """Makes registries resolve names as the config's training would, and mmengine log errors only.

    Raises:
        InputError: The package of the scope is not installed.
    """
    from mmengine.logging import MMLogger

    scope = scope_of(config)
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
        with in_scope(config):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def cheapest_scope(config: Config, registry: Registry, settings: Any) -> Iterator[Any]:
    """Enters the config's scope, or mmengine's if that gives the same result without importing the scope's package.

    mmengine itself defines the common names (SGD, LinearLR, …), and no OpenMMLab package redefines them. Importing
    mmpretrain takes longer than everything else that a simple schedule needs.

    Args:
        config: The config.
        registry: mmengine's root registry for the objects to build.
        settings: The configs of the objects to build.

    Yields:
        The settings to build from.
    """
    known = all(isinstance(kind, str) and is_registered(registry, kind) for kind in types_of(settings))
    scopes = {scope_of(config), *scopes_of(settings)}
    if known and scopes <= {'mmengine', *PACKAGES} and not config.get('custom_imports') and not registry.children:
        from mmengine.registry import DefaultScope

        with DefaultScope.overwrite_default_scope('mmengine'):
            yield _unscoped(settings)
        return
    with training_scope(config):
        yield settings


def type_name(kind: Any) -> str:
    """The name of a ``type`` in a config, which is a name or a class; without its package."""
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))).rpartition('.')[2]


def types_of(settings: Any) -> list[Any]:
    """Every ``type`` in nested settings."""
    return _values_of(settings, 'type')


def scopes_of(settings: Any) -> list[Any]:
    """Every ``_scope_`` in nested settings: the package whose config they come from."""
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


_NUMBER = re.compile(r'[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?')
_EXPONENT = re.compile(r'([+-]?\d+)[eE]([+-]?)(\d+)')


def numbers_as_text(settings: Any, place: str) -> str:
    """A hint that names the first number that is text in nested settings; ``''`` where there is none.

    Args:
        settings: What could not be built.
        place: Its key in the config.
    """
    if isinstance(settings, Mapping):
        pairs = [(f'{place}.{key}', value) for key, value in settings.items()]
    elif isinstance(settings, (list, tuple)):
        pairs = [(f'{place}[{index}]', value) for index, value in enumerate(settings)]
    elif isinstance(settings, str) and _NUMBER.fullmatch(settings):
        return f'{place} is the text {settings!r}, not a number{_in_yaml(settings)}'
    else:
        return ''
    return next((hint for key, value in pairs if (hint := numbers_as_text(value, key))), '')


def _in_yaml(text: str) -> str:
    """What to write in YAML, which takes an exponent without a point and a sign for text."""
    found = _EXPONENT.fullmatch(text)
    if not found:
        return ''
    return f'; YAML reads this form as text: write {float(text):g} or {found[1]}.0e{found[2] or "+"}{found[3]}'
