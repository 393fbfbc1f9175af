"""vistool's registries, children of mmengine's, and the scope in which a config's names are looked up.

``ANALYSES`` holds the analyses, ``TRANSFORMS`` vistool's transforms for pipelines
(``type='vistool.LocalBinaryPattern'``), ``MODELS`` its wrappers of other libraries' models
(``type='vistool.TorchvisionClassifier'``), and ``CAM_TARGETS`` scores of the user's own.

``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))`` builds an analysis. A user's own class is registered
by a decorator in the user's file, which the config's ``custom_imports`` loads.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

import mmengine.registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS, DefaultScope, Registry, registry
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

from vistool import imports
from vistool.environment import without_import_notices
from vistool.errors import close_matches

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger('vistool')

ANALYSIS_MODULES = {
    'Attention': 'vistool.analyses.attention',
    'BrowseDataset': 'vistool.analyses.dataset',
    'CAM': 'vistool.analyses.cam',
    'Check': 'vistool.analyses.check',
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
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='vistool', locations=['vistool.data.image_folder'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='vistool', locations=['vistool.training'])
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
    scope = DefaultScope.overwrite_default_scope(scope_of(config, default))
    with scope, registered_only(is_data(config)), without_import_notices():
        yield


def is_data(config: Config) -> bool:
    """Whether a config was read from YAML or JSON, which never runs code."""
    return str(getattr(config, 'filename', None) or '').lower().endswith(('.yaml', '.yml', '.json'))


def near_names(message: str) -> str:
    """``'did you mean RandomFlip?'`` for what mmengine says of a name that no registry has; ``''`` for all else."""
    found = re.match(r'(\S+) is not in the \w+::([\w ]+) registry', message)
    if found is None:
        return ''
    roots = [each for each in vars(mmengine.registry).values() if isinstance(each, Registry) and each.name == found[2]]
    lists = [each.module_dict for root in roots for each in (root, *root.children.values())]
    return close_matches(found[1].rpartition('.')[2], [name for names in lists for name in names], 3)


def scope_hint(name: str, scope: str | None) -> str:
    """What a config without ``default_scope`` lacks where a name of it is mmpretrain's; ``''`` where it is not that."""
    if scope or '.' in name:
        return ''
    importlib.import_module('mmpretrain.registry')
    roots = (each for each in vars(mmengine.registry).values() if isinstance(each, Registry))
    children = (root.children.get('mmpretrain') for root in roots)
    lacking = any(child is not None and _own(child, name) is not None for child in children)
    return "the config needs default_scope = 'mmpretrain'" if lacking else ''


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


_FILLED_BY: Mapping[str, Sequence[str]] = {
    'data sampler': ['mmengine.dataset'],
    'dataset': ['mmengine.dataset'],
    'function': ['mmengine.dataset'],
    'hook': ['mmengine.hooks'],
    'model': ['mmengine.model', 'mmcv.cnn'],
    'model_wrapper': ['mmengine.model'],
    'optim_wrapper': ['mmengine.optim'],
    'optimizer': ['mmengine.optim'],
    'optimizer wrapper constructor': ['mmengine.optim'],
    'parameter scheduler': ['mmengine.optim.scheduler'],
    'transform': ['mmcv.transforms'],
    'vis_backend': ['mmengine.visualization'],
    'weight initializer': ['mmengine.model'],
}
"""mmengine's own registries → the packages that fill them, which each package of OpenMMLab imports."""
_get = Registry.get


def _found_lazily(self: Registry, key: str) -> Any:
    """What ``Registry.get`` gives; while imports are lazy, without importing more than the module that registers it."""
    if imports.are_lazy() and isinstance(key, str):
        found = _registered(self, key)
        if found is not None:
            return found
        log.debug('no single module registers %s: packages are imported as a whole', key)
        imports.import_fully()
    return _get(self, key)


def is_registered(searched: Registry, name: str) -> bool:
    """Whether a registry itself has a name, or would have once the packages that fill it are imported."""
    return name in searched.module_dict or (imports.are_lazy() and _own(searched, name) is not None)


def _registered(searched: Registry, key: str) -> Any:
    """What a registry, its parents or the registry that ``scope.Name`` names have under a name; None if unknown."""
    scope, name = searched.split_scope_key(key)
    if scope is None:
        found = _own(searched, name)
        above = _lineage(searched.parent)
        return (
            found
            if found is not None
            else next((it for each in above if (it := _own(each, name, True)) is not None), None)
        )
    if scope == searched.scope:
        return _own(searched, name)
    if scope not in known_scopes():
        return _object_if_allowed(key)  # `torch.nn.ReLU`
    if scope not in _LAZY_SCOPES:
        return None
    importlib.import_module(f'{scope}.registry')
    root = searched.root
    home = root if root.scope == scope else root.children.get(scope)
    return None if home is None else _registered(home, name)


_LAZY_SCOPES = ('mmengine', 'mmpretrain', 'vistool')


def _lineage(searched: Registry | None) -> Iterator[Registry]:
    while searched is not None:
        yield searched
        searched = searched.parent


def _own(searched: Registry, name: str, for_package: bool = False) -> Any:
    """What a registry itself has under a name, after importing the module that registers it; None if it has nothing.

    Args:
        searched: The registry.
        name: The name, without a scope.
        for_package: Whether a package below mmengine asks, so that mmcv has been imported.
    """
    packages = searched._locations or (_FILLED_BY.get(searched.name, ()) if searched.scope == 'mmengine' else ())
    for package in packages if searched.scope in _LAZY_SCOPES else ():
        if name in searched.module_dict:
            break
        if package.startswith('mmcv.') and not for_package:
            continue
        modules, others = imports.registrations(package)
        for module in [modules[name]] if name in modules else others:
            _import_or_forget(module, searched)
    return searched.module_dict.get(name)


def _import_or_forget(module: str, searched: Registry) -> None:
    """Imports a module; if that fails, what it registered is taken back, and the whole package is imported next."""
    try:
        imports.import_module(module)
    except Exception:  # code of others, imported in another order than they do
        log.debug('%s cannot be imported without its package', module, exc_info=True)
        for each in _lineage(searched):
            for name in [name for name, it in each.module_dict.items() if getattr(it, '__module__', '') == module]:
                del each.module_dict[name]


_scope: ContextVar[DefaultScope | None] = ContextVar('scope', default=None)
_current_scope = DefaultScope.get_current_instance


def _scope_of_thread(cls: type[DefaultScope]) -> DefaultScope | None:
    """The default scope that this thread has overwritten, else that of the process."""
    return _scope.get() or _current_scope()


@contextmanager
def _overwritten(cls: type[DefaultScope], scope_name: str | None) -> Iterator[None]:
    """Makes ``scope_name`` the default scope of this thread; None leaves it as it is."""
    token = _scope.set(DefaultScope(f'of {scope_name}', scope_name=scope_name) if scope_name else _scope.get())
    try:
        yield
    finally:
        _scope.reset(token)


# A registry imports any dotted name that it does not know, `os.system` too, and has no setting against it. The
# replacements do what the originals do, except within `registered_only` and within `imports.lazy_imports`.
registry.get_object_from_string = _object_if_allowed
registry.import_module = _module_if_allowed
Registry.get = _found_lazily

# mmengine keeps overwritten scopes in one list of the process and restores a copy of it: of two threads that overwrite
# at the same time, the first to end takes the other's scope away (mmengine/registry/default_scope.py).
DefaultScope.get_current_instance = classmethod(_scope_of_thread)
DefaultScope.overwrite_default_scope = classmethod(_overwritten)
