"""vistool's registries, children of mmengine's, and the scope in which a config's names are looked up.

``ANALYSES`` holds the analyses, ``TRANSFORMS`` vistool's transforms for pipelines
(``type='vistool.LocalBinaryPattern'``), ``MODELS`` its wrappers of other libraries' models
(``type='vistool.TorchvisionClassifier'``), and ``CAM_TARGETS`` scores of the user's own.

``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))`` builds an analysis. A user's own class is registered
by a decorator in the user's file, which the config's ``custom_imports`` loads.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

import mmengine.registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS, DefaultScope, Registry, registry
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

if TYPE_CHECKING:
    from mmengine.config import Config

ANALYSIS_MODULES = {
    'Attention': 'vistool.analyses.attention',
    'BrowseDataset': 'vistool.analyses.dataset',
    'CAM': 'vistool.analyses.cam',
    'DatasetEmbedding': 'vistool.analyses.embedding',
    'DatasetReport': 'vistool.analyses.dataset',
    'FeatureMaps': 'vistool.analyses.featmap',
    'Patches': 'vistool.analyses.patches',
    'Schedule': 'vistool.analyses.schedule',
}
"""vistool's own analyses by name, and the module of each: the one place where an analysis is declared."""

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=sorted({*ANALYSIS_MODULES.values()}))
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='vistool', locations=['vistool.data.derived'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='vistool', locations=['vistool.models.wrappers'])
CAM_TARGETS = Registry('cam target', scope='vistool')
"""Scores, other than those of classes, that a class activation map can explain: ``cam_target = dict(type='Name', …)``.

Each is a function, or a class with instances, that is called with ``(output, samples)`` and returns one score ``(n,)``
for each image in the network's output. The registry has no parent, so that a name is found in every default scope.
"""


def scope_of(config: Config, default: str = 'mmengine') -> str:
    """The package whose registries a config's names are looked up in.

    Args:
        config: The config.
        default: The package if the config has no ``default_scope``.
    """
    scope = config.get('default_scope') or default
    return 'mmpretrain' if scope == 'mmcls' else str(scope)


@contextmanager
def in_scope(config: Config, default: str = 'mmengine') -> Iterator[None]:
    """Makes registries resolve names as the config's own training would; see :func:`scope_of`.

    For a config that is data (YAML, JSON), they find what is registered and import nothing that it names.
    """
    with DefaultScope.overwrite_default_scope(scope_of(config, default)), registered_only(is_data(config)):
        yield


def is_data(config: Config) -> bool:
    """Whether a config was read from YAML or JSON, which never runs code."""
    return str(getattr(config, 'filename', None) or '').lower().endswith(('.yaml', '.yml', '.json'))


def known_scopes() -> set[str]:
    """The scopes that a config may name: OpenMMLab's packages, vistool, and those that were imported before."""
    roots = (each for each in vars(mmengine.registry).values() if isinstance(each, Registry))
    return {'mmengine', 'mmcv', 'vistool', *MODULE2PACKAGE, *(scope for root in roots for scope in root.children)}


def is_registry_name(name: str) -> bool:
    """Whether ``name`` can be that of a registered class, ``Name`` or ``scope.Name``; a dotted path cannot."""
    scope, dot, own = name.rpartition('.')
    return not dot or (bool(own) and scope in known_scopes())


_registered_only: ContextVar[bool] = ContextVar('registered_only', default=False)
_import_object, _import_module = registry.get_object_from_string, registry.import_module


@contextmanager
def registered_only(only: bool = True) -> Iterator[None]:
    """Within it, registries of this thread import nothing by a name that is not registered."""
    token = _registered_only.set(only or _registered_only.get())
    try:
        yield
    finally:
        _registered_only.reset(token)


def _object_if_allowed(name: str) -> Any:
    return None if _registered_only.get() else _import_object(name)


def _module_if_allowed(name: str, package: str | None = None) -> ModuleType:
    top = re.split(r'\W', name)[0]
    if _registered_only.get() and top not in known_scopes() and top not in sys.modules:
        raise ModuleNotFoundError(f'No module named {name!r} is imported for a YAML or JSON config')
    return _import_module(name, package)


# A registry imports any dotted name that it does not know, `os.system` too, and has no setting against it. The
# replacements do what the originals do, except within `registered_only`.
registry.get_object_from_string = _object_if_allowed
registry.import_module = _module_if_allowed
