"""A user's own modules: what a Python config imports, and the working folder as the last place to find it."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vistool.errors import InputError
from vistool.imports import import_fully
from vistool.records import shown


def make_importable(names: set[str]) -> None:
    """Appends the working folder to ``sys.path`` if a module that a config imports is there and nowhere else.

    It comes last, so that a file called ``numpy.py`` beside the photos is never mistaken for the package, and only when
    it is needed, so that a file called like a package that is not installed is not run either.

    Args:
        names: Top-level modules that the config imports.
    """
    here = os.getcwd()
    if here in sys.path or '' in sys.path:
        return
    if any(_is_here(name, Path(here)) and importlib.util.find_spec(name) is None for name in names):
        sys.path.append(here)
        importlib.invalidate_caches()


def _is_here(name: str, folder: Path) -> bool:
    return name.isidentifier() and ((folder / f'{name}.py').is_file() or (folder / name).is_dir())


def static_imports(path: Path, seen: set[Path] | None = None) -> set[str]:
    """Top-level modules that a Python config and its bases import, read off their text."""
    seen = set() if seen is None else seen
    if path.suffix != '.py' or path in seen or not path.is_file():
        return set()
    seen.add(path)
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return set()  # reading it says what is wrong
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.level:
                base = path.parents[node.level - 1] if node.level <= len(path.parents) else path.parent
                found |= static_imports(base / f'{node.module.replace(".", "/")}.py', seen)
            else:
                found.add(node.module.partition('.')[0])
    for base_name in bases_of(tree):
        if '::' not in base_name:
            found |= static_imports(path.parent / base_name, seen)
    return found


def bases_of(tree: ast.Module) -> list[str]:
    """The files that ``_base_ = …`` names in a Python config."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == '_base_':
            strings = (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
            return [string for string in strings if isinstance(string, str)]
    return []


def named_modules(settings: Any) -> set[str]:
    """Top-level modules of the dotted types in a config: ``dict(type='my_parts.Net')``."""
    return {kind.partition('.')[0] for kind in _types(settings) if '.' in kind}


def _types(settings: Any) -> Iterator[str]:
    if isinstance(settings, Mapping):
        for key, value in dict.items(settings) if isinstance(settings, dict) else settings.items():
            if key == 'type' and isinstance(value, str):
                yield value
            yield from _types(value)
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            yield from _types(value)


PLAIN = ('mmcv', 'mmengine', 'mmpretrain', 'vistool')
"""Packages that register nothing under a name of another."""


def import_custom(settings: Any, path: Path) -> None:
    """Imports what ``custom_imports`` of a Python config names, as mmengine does.

    Raises:
        InputError: It is not ``dict(imports=[…])``.
        ImportError: A module cannot be imported.
    """
    from mmengine.utils import import_modules_from_strings

    names = settings.get('imports') if isinstance(settings, Mapping) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f'{path}: custom_imports is {shown(settings)}', accepted="dict(imports=['module', …])", parameter='config'
        )
    make_importable({name.partition('.')[0] for name in names})
    if not all(name.partition('.')[0] in PLAIN for name in names):
        import_fully()  # it may override what a package registers, or list it
    import_modules_from_strings(list(names), bool(settings.get('allow_failed_imports')))
