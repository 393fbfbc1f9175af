"""Imports of a command: OpenMMLab's packages module by module, as their names are asked for.

``import mmpretrain.models.backbones.resnet`` runs ``mmpretrain/__init__.py`` first, which imports every network, metric
and inferencer of the package, and with them transformers, torchvision, FSDP and sympy: seconds, for what most configs
never name. Within :func:`lazy_imports` the ``__init__`` of such packages waits until something is asked of the package
that no single module in it can give. Then it runs, in the same module object, and the package is what it always is.

What makes the imports of one network long, in the versions of 2026:

* ``mmpretrain/__init__.py`` imports ``mmpretrain.apis``, and with it all the rest;
* ``mmengine/model/base_model/base_model.py`` takes one class of ``mmengine.optim``, whose ``optimizer/builder.py``
  imports transformers and whose ``optimizer/zero_optimizer.py`` imports FSDP;
* ``mmpretrain/models/heads/cls_head.py`` takes one metric of ``mmpretrain.evaluation``, of whose other metrics
  ``visual_grounding_eval.py`` imports ``torchvision.ops``, which imports ``torch._dynamo``;
* ``mmpretrain/datasets/transforms/processing.py`` imports albumentations and torchvision, for two transforms of many;
* ``matplotlib/artist.py`` writes the help text of a hundred classes out of the help texts of their methods.

Packages that were imported before are left alone. Afterwards a package that still waits counts as not imported: the
next ``import`` runs its ``__init__``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

GATHERING = frozenset(
    {
        'mmengine.evaluator',
        'mmengine.model',
        'mmengine.model.wrappers',
        'mmengine.optim',
        'mmengine.optim.optimizer',
        'mmengine.runner',
        'mmpretrain',
    }
)
"""Packages whose ``__init__`` gathers names out of modules: any module in them can be imported without it. mmpretrain's
packages inside are of this kind too."""

WHOLE: Mapping[str, frozenset[str]] = {
    'albumentations': frozenset(),
    'torchvision': frozenset({'transforms', 'utils'}),
    'transformers': frozenset(),
}
"""Packages that are imported as a whole, and only when they are used → modules that need nothing of the rest."""

_lock = threading.RLock()


@contextmanager
def lazy_imports() -> Iterator[None]:
    """Within it, packages wait until their names are asked for. For a process of vistool's own: a command."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.active = True
    try:
        yield
    finally:
        _finder.end()


def import_fully() -> None:
    """Ends :func:`lazy_imports` early, and runs the ``__init__`` of every package that waits.

    For code of the user's own, and for names that no single module can be found for. From now on each import does all
    that it does in any other program.
    """
    _finder.end()
    for name in list(_finder.waiting):
        importlib.import_module(name)


def are_lazy() -> bool:
    """Whether packages wait."""
    return _finder.active


def _gathers(package: str) -> bool:
    return package in GATHERING or package.partition('.')[0] in GATHERING


class _Package(ModuleType):
    """A package whose ``__init__`` has not run."""

    def __getattr__(self, name: str) -> Any:
        special = name.startswith('__') and name not in ('__all__', '__version__')  # such as inspect asks of any module
        if special or self.__name__ not in _finder.waiting:
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        place = names_of(self.__name__).get(name) if _finder.active else None
        if place is None:
            _finder.run(self.__name__)
            return getattr(self, name)
        source, attribute = place
        module = importlib.import_module(source)
        return getattr(module, attribute) if attribute else module

    def __setattr__(self, name: str, value: Any) -> None:
        """Keeps a function that has the name of its module, such as ``mmpretrain.models.utils.make_divisible``.

        Python sets each imported module in its package; there ``__init__`` puts the function in its place.
        """
        if isinstance(value, ModuleType) and self.__name__ in _finder.waiting and _finder.active:
            source, attribute = names_of(self.__name__).get(name, ('', ''))
            if attribute and source == value.__name__:
                value = getattr(value, attribute)
        super().__setattr__(name, value)


class _Waiting(Loader):
    """Makes a package without running its ``__init__``."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        _finder.waiting[module.__name__] = module


class _Resuming(Loader):
    """Runs the ``__init__`` of a package that waits, where it is imported again."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        _finder.finish(module)


class _Around(Loader):
    """Passes everything on to another loader; subclasses run a module in their own way."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)


class _WithoutTransformers(_Around):
    """Runs ``mmengine/optim/optimizer/builder.py`` without transformers, of which it registers one optimizer.

    What it registers is remembered, so that the module can be forgotten.
    """

    def exec_module(self, module: ModuleType) -> None:
        from mmengine.registry import OPTIMIZERS

        before = set(OPTIMIZERS.module_dict)
        sys.modules['transformers'] = None  # type: ignore[assignment]  # what Python takes for "cannot be imported"
        try:
            self.loader.exec_module(module)
        finally:
            del sys.modules['transformers']
        registered = set(OPTIMIZERS.module_dict) - before

        def forget() -> None:
            sys.modules.pop(module.__name__, None)
            for name in registered:
                OPTIMIZERS.module_dict.pop(name, None)

        _finder.incomplete[_BUILDERS] = forget


_BUILDERS = 'mmengine.optim.optimizer'


class _WithoutHelp(_Around):
    """Runs ``matplotlib/artist.py`` so that classes made before :func:`lazy_imports` ends have no help texts made up.

    What it leaves out are docstrings and the signature that ``help()`` shows of each class's ``set``.
    """

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        base, kwdoc = module.Artist, module.kwdoc
        described = vars(base)[_DESCRIBES]

        def mark(cls: Any) -> None:
            cls.set._autogenerated_signature = True  # so that classes below it get a ``set`` of their own, as always

        def restore() -> None:
            setattr(base, _DESCRIBES, described)
            module.kwdoc = kwdoc  # type: ignore[attr-defined]

        setattr(base, _DESCRIBES, classmethod(mark))
        module.kwdoc = lambda artist: ''  # type: ignore[attr-defined]
        _finder.incomplete[_ARTIST] = restore


_ARTIST = 'matplotlib.artist'
_DESCRIBES = '_update_set_signature_and_docstring'


class _Finder(MetaPathFinder):
    """Finds packages that are to wait, and those that wait.

    Attributes:
        active: Whether packages are to wait.
        waiting: Packages whose ``__init__`` has not run; they are in ``sys.modules`` while ``active``.
        incomplete: Package → what makes a module in it, which was run in part, as if it had not been imported; or
            module → what makes it work in full again.
    """

    def __init__(self) -> None:
        self.active = False
        self.waiting: dict[str, ModuleType] = {}
        self.incomplete: dict[str, Callable[[], None]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :meth:`importlib.abc.MetaPathFinder.find_spec`."""
        if name in self.waiting:
            module = self.waiting[name]
            resumed = ModuleSpec(name, _Resuming(module), origin=module.__file__, is_package=True)
            resumed.submodule_search_locations = list(module.__path__)
            resumed.has_location = True
            return resumed
        top, _, inner = name.partition('.')
        if not self.active:
            return None
        if top in WHOLE and inner:
            if inner.partition('.')[0] not in WHOLE[top]:
                self.run(top)
            return None
        builders = name == f'{_BUILDERS}.builder' and _BUILDERS in self.waiting and 'transformers' not in sys.modules
        if not (_gathers(name) or top in WHOLE or builders or name == _ARTIST):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for each in others if (found := each.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            if builders:
                spec.loader = _WithoutTransformers(spec.loader)
            elif name == _ARTIST:
                spec.loader = _WithoutHelp(spec.loader)
            elif spec.submodule_search_locations is not None:
                spec.loader = _Waiting(spec.loader)
        return spec

    def end(self) -> None:
        """From now on packages that wait count as not imported."""
        self.active = False
        for name in self.waiting:
            sys.modules.pop(name, None)
        for package in list(self.incomplete):
            self.forget_incomplete(package)

    def run(self, name: str) -> None:
        """Runs the ``__init__`` of a package if it waits."""
        with _lock:
            if name in self.waiting:
                if name in sys.modules:
                    self.finish(self.waiting[name])
                else:
                    importlib.import_module(name)

    def finish(self, module: ModuleType) -> None:
        """Runs the ``__init__`` of a package that waits; if that fails, it waits on."""
        with _lock:
            name, spec = module.__name__, module.__spec__
            assert spec is not None
            waiting = module.__loader__
            assert isinstance(waiting, _Waiting)
            self.forget_incomplete(name)
            del self.waiting[name]
            module.__class__, module.__loader__, spec.loader = ModuleType, waiting.loader, waiting.loader
            try:
                waiting.loader.exec_module(module)
            except BaseException:
                module.__class__, module.__loader__, spec.loader = _Package, waiting, waiting
                self.waiting[name] = module
                raise

    def forget_incomplete(self, package: str) -> None:
        """Makes a module of the package that was run in part as if it had not been imported."""
        if forget := self.incomplete.pop(package, None):
            forget()


_finder = _Finder()


@functools.cache
def names_of(package: str) -> Mapping[str, tuple[str, str]]:
    """What a package's ``__init__`` takes from modules in the package: name → module, and name there (``''``: itself).

    What the ``__init__`` takes only under a condition, or makes itself, is left out: for that, it has to run.
    """
    if package in WHOLE:
        return {name: (f'{package}.{name}', '') for name in WHOLE[package]}
    names = {module.rpartition('.')[2]: (module, '') for module in _modules_in(package)}
    for source, alias in _taken_by(package):
        if alias.name != '*':
            names[alias.asname or alias.name] = source, alias.name
        elif source in _packages_in(package):
            names |= {name: place for name, place in names_of(source).items() if place[1]}
    return names


def _taken_by(package: str) -> Iterator[tuple[str, ast.alias]]:
    """What a package's ``__init__`` takes in any case from inside the package: ``(module, name)``."""
    init = _folder(package) / '__init__.py'
    for node in ast.parse(init.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.ImportFrom):
            source = resolve_name('.' * node.level + (node.module or ''), package)
            if source.startswith(f'{package}.'):
                yield from ((source, alias) for alias in node.names)


@functools.cache
def _folder(package: str) -> Path:
    top = package.partition('.')[0]
    module = sys.modules.get(top) or importlib.import_module(top)
    return Path(module.__path__[0], *package.split('.')[1:])


def _packages_in(package: str) -> set[str]:
    return {module for module in _modules_in(package) if (_folder(package) / module.rpartition('.')[2]).is_dir()}


@functools.cache
def _modules_in(package: str) -> set[str]:
    """The modules and packages directly in a package."""
    folder = _folder(package)
    files = {path.stem for path in folder.glob('*.py')} - {'__init__'}
    return {f'{package}.{name}' for name in files | {path.parent.name for path in folder.glob('*/__init__.py')}}


_DECORATED = re.compile(r'^@\w+\.register_module\(([^)]*)\)\n(?:@.*\n)*(?:class|def) (\w+)', re.MULTILINE)
_REGISTERS = re.compile(r'^(?!.*>>>).*\.register_module\(', re.MULTILINE)


@functools.cache
def registrations(package: str) -> tuple[Mapping[str, str], Sequence[str]]:
    """What the modules register that a package's ``__init__`` imports in any case.

    Their texts are read for the decorator ``@REGISTRY.register_module()``; nothing is imported.

    Returns:
        Name of a class or function → module, and the modules that register something in another way: the package
        itself, if it is imported as a whole.
    """
    if not _gathers(package):
        return {}, [package]
    found: dict[str, str] = {}
    others: list[str] = []
    for module, path in _imported_by(package):
        text = path.read_text(encoding='utf-8')
        if 'register_module(' not in text:
            continue
        decorated = _DECORATED.findall(text)
        for arguments, name in decorated:
            found |= dict.fromkeys(re.findall(r'[\'"]([^\'"]+)', arguments) or [name], module)
        if len(_REGISTERS.findall(text)) > len(decorated):
            others.append(module)
    return found, others


def _imported_by(package: str) -> Iterator[tuple[str, Path]]:
    """A package, and the modules with their files that its ``__init__`` and those of packages inside import."""
    yield package, _folder(package) / '__init__.py'
    packages = _packages_in(package)
    for source in dict.fromkeys(source for source, _ in _taken_by(package)):
        if source in packages:
            yield from _imported_by(source)
        elif source in _modules_in(package):
            yield source, (_folder(package) / source.rpartition('.')[2]).with_suffix('.py')


def import_module(name: str) -> ModuleType:
    """Imports a module; the ``__init__`` of a package runs, whether or not it would wait."""
    module = importlib.import_module(name)
    _finder.run(name)
    return module
