"""Weights in several files, as Hugging Face cuts large ones up: an index beside them says which tensor lies where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vistool.errors import InputError

INDEX = '.index.json'
"""How the name of an index ends: ``model.safetensors.index.json``, ``pytorch_model.bin.index.json``."""


def is_index(file: Path) -> bool:
    """Whether a file says by its name that it is an index of others."""
    return file.name.endswith(INDEX)


def shards(index: Path) -> list[Path]:
    """The files that an index names, in order; they lie beside it.

    Raises:
        InputError: It cannot be read, names a file elsewhere, or one that does not exist.
    """
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f'{index} names a file in another folder, {name!r}', argument='checkpoint')
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        problem = f'{index}: {len(missing)} of {len(names)} files are missing: {", ".join(missing[:3])}'
        raise InputError(problem, hint='download the folder again', argument='checkpoint')
    return [index.parent / name for name in names]


def read_shards(index: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """All tensors by name, every file read by ``read``.

    Raises:
        InputError: A file does not hold what the index says.
    """
    found: dict[str, Any] = {}
    for file in shards(index):
        content = read(file)
        found.update(content if isinstance(content, dict) else {})
    absent = sorted(_weight_map(index).keys() - found.keys())
    if absent:
        problem = f'{index}: the files hold no {", ".join(absent[:3])}' + (' …' if len(absent) > 3 else '')
        raise InputError(problem, hint='download the folder again', argument='checkpoint')
    return found


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding='utf-8'))['weight_map']
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f'{index} is no index of weights ({type(error).__name__}: {error})'
        raise InputError(problem, hint='download the folder again', argument='checkpoint') from error
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise InputError(f'{index} names no files', hint='download the folder again', argument='checkpoint')
    return found
