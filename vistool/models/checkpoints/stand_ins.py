"""Harmless stand-ins for what checkpoints name besides tensors.

Checkpoints written by mmengine hold logs, scheduler states and NumPy scalars, and their pickles name classes and even
``builtins.getattr``. Each such name maps to a stand-in of this module, so that no class or function of NumPy, mmengine
or builtins is ever handed to a file.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_STATISTICS = ('min', 'max', 'mean', 'current')
_PLAIN_DTYPE = re.compile(r'[biufc]\d{1,2}|[SU]\d{1,6}')


class Inert:
    """Stands for any object that is not needed; takes whatever it is given and does nothing."""

    def __new__(cls, *_args: Any, **_options: Any) -> Inert:  # noqa: D102 - takes what any constructor takes
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_options: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


class HistoryBuffer(Inert):
    """Stands for mmengine's log of one scalar."""


class Scheduler(Inert):
    """Stands for mmengine's parameter schedulers."""


class Dtype:
    """Stands for ``numpy.dtype``; knows plain numbers and text only, never objects, records or sub-arrays."""

    def __init__(self, code: Any = None, *_flags: Any) -> None:
        self.code = code if isinstance(code, str) and _PLAIN_DTYPE.fullmatch(code) else ''
        self.order = '='

    def __setstate__(self, state: Any) -> None:
        match state:
            case (_, '<' | '>' | '|' | '=' as order, None, None, None, *_):
                self.order = order
            case _:
                self.code = ''

    def numpy(self) -> np.dtype[Any] | None:
        """The real type, or None where it is not a plain one."""
        return np.dtype(self.order + self.code) if self.code else None


class Array:
    """Stands for ``numpy.ndarray``; ``value`` is the real array, or None where its type is not a plain one."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        match state:
            case (_, tuple() as shape, Dtype() as dtype, fortran, bytes() as raw) if dtype.code:
                self.value = np.frombuffer(raw, dtype.numpy()).reshape(shape, order='F' if fortran else 'C').copy('K')


def _reconstruct(*_args: Any) -> Array:
    return Array()


def _scalar(dtype: Any = None, raw: Any = None, *_rest: Any) -> Any:
    if isinstance(dtype, Dtype) and dtype.code and isinstance(raw, bytes):
        return np.frombuffer(raw, dtype.numpy(), count=1)[0].item()
    return Inert()


def _attribute(owner: Any, name: Any, *_default: Any) -> type[Inert]:
    """Stands for ``getattr``, which names the methods that a HistoryBuffer or a scheduler keeps; looks nothing up."""
    if (owner is HistoryBuffer and name in _STATISTICS) or owner is Scheduler:
        return Inert
    raise pickle.UnpicklingError('GLOBAL getattr was not an allowed global by default.')


def _empty_bytes() -> bytes:
    return b''


def _mapping(*_factory: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


_NUMPY_CORES = ('numpy.core.multiarray', 'numpy._core.multiarray')  # NumPy 1 and NumPy 2
STAND_INS: dict[str, Any] = {
    'builtins.getattr': _attribute,
    'builtins.bytes': _empty_bytes,  # how protocol 2 writes b''
    'collections.defaultdict': _mapping,
    'numpy.ndarray': Array,
    'numpy.dtype': Dtype,
    **{f'{core}._reconstruct': _reconstruct for core in _NUMPY_CORES},
    **{f'{core}.scalar': _scalar for core in _NUMPY_CORES},
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    **dict.fromkeys(
        [
            'mmengine.config.config.ConfigDict',
            'mmcv.utils.config.ConfigDict',
            'addict.addict.Dict',
            'yacs.config.CfgNode',
            'easydict.EasyDict',
        ],
        OrderedDict,
    ),
    **dict.fromkeys(
        [
            'mmengine.config.config.Config',
            'mmcv.utils.config.Config',
            'argparse.Namespace',
            'pathlib.Path',
            'pathlib.PosixPath',
            'pathlib.WindowsPath',
            'torch.torch_version.TorchVersion',
            'builtins.slice',
            'builtins.int',
            'builtins.float',
            'builtins.str',
            'builtins.list',
            'builtins.dict',
        ],
        Inert,
    ),
}
# Families too large to list: patterns for full names.
FAMILIES: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r'mmengine\.optim\.scheduler\.\w+\.\w+'), Scheduler),
    (re.compile(r'mmengine\.config\.lazy\.\w+|torch\.optim\.lr_scheduler\.\w+'), Inert),
    (re.compile(r'numpy\.(?:dtypes\.\w+|bool_?|str_|u?int\d*|float\d+|complex\d+)'), Inert),
)


def plain(value: Any) -> Any:
    """Containers, numbers and text as they are, arrays as NumPy arrays, and None for every stand-in.

    A container that is reached twice is converted once, so that a small file cannot unfold into a huge object.
    """
    try:
        return _plain(value, {})
    except RecursionError:  # nested deeper than any honest file
        return None


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, dict):
        mapping = seen[id(value)] = {}
        mapping.update((key, _plain(item, seen)) for key, item in dict.items(value) if isinstance(key, str | int))
        return mapping
    if isinstance(value, list):
        items = seen[id(value)] = []
        items.extend(_plain(item, seen) for item in value)
        return items
    if isinstance(value, tuple):
        seen[id(value)] = None  # a tuple within itself
        seen[id(value)] = tuple(_plain(item, seen) for item in value)
        return seen[id(value)]
    if isinstance(value, Array):
        return value.value
    return value if isinstance(value, str | bytes | int | float | complex | torch.Tensor | np.ndarray) else None
