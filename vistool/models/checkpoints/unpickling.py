"""Reads PyTorch's pickled files without running what they hold.

A pickle is a small program. PyTorch's ``weights_only`` reader runs it with a list of permitted names. While a file is
read here, that list holds, beyond PyTorch's own, nothing but the harmless stand-ins of this module.

Checkpoints written by mmengine hold logs, scheduler states and NumPy scalars, and their pickles name classes and even
``builtins.getattr``. Each such name maps to a stand-in, so that no class or function of NumPy, mmengine or builtins is
ever handed to a file.
"""

from __future__ import annotations

import errno
import os
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # protocol 2 writes the names of Python 2
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from vistool.errors import InputError, param

_STATISTICS = ('min', 'max', 'mean', 'current')
_PLAIN_DTYPE = re.compile(r'[biufc]\d{1,2}|[SU]\d{1,6}')


class Inert:
    """Replaces any object that is not needed; it accepts any arguments and does nothing."""

    def __new__(cls, *_args: Any, **_options: Any) -> Inert:  # noqa: D102 - takes what any constructor takes
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_options: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


class HistoryBuffer(Inert):
    """Replaces mmengine's log of one scalar."""


class Scheduler(Inert):
    """Replaces mmengine's parameter schedulers."""


class Dtype:
    """Replaces ``numpy.dtype``; accepts numbers and text only, never objects, records or sub-arrays."""

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
        """The NumPy type, or None if it is not a number or text."""
        return np.dtype(self.order + self.code) if self.code else None


class Array:
    """Replaces ``numpy.ndarray``; ``value`` is the NumPy array, or None if its type is not a number or text."""

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
    """Replaces ``getattr``, which pickles of a HistoryBuffer or a scheduler use for their methods; looks nothing up."""
    if (owner is HistoryBuffer and name in _STATISTICS) or owner is Scheduler:
        return Inert
    raise pickle.UnpicklingError('GLOBAL getattr was not an allowed global by default.')


def _empty_bytes() -> bytes:
    return b''


def _mapping(*_factory: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


_NUMPY_CORES = ('numpy.core.multiarray', 'numpy._core.multiarray')  # NumPy 1 and NumPy 2
_PATHLIB = ('pathlib', 'pathlib._local')  # the second is how Python 3.13 names it
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
            *(f'{module}.{name}' for module in _PATHLIB for name in ('Path', 'PosixPath', 'WindowsPath')),
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
# Families too large to list, as patterns of full names.
FAMILIES: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r'mmengine\.optim\.scheduler\.\w+\.\w+'), Scheduler),
    (re.compile(r'mmengine\.config\.lazy\.\w+|torch\.optim\.lr_scheduler\.\w+'), Inert),
    (re.compile(r'numpy\.(?:dtypes\.\w+|bool_?|str_|u?int\d*|float\d+|complex\d+)'), Inert),
)


def plain(value: Any) -> Any:
    """Containers, numbers and text unchanged, arrays as NumPy arrays, and None for every other stand-in.

    A container that is reached twice is converted once, so that a small file cannot expand into a huge object.
    """
    try:
        return _plain(value, {})
    except RecursionError:  # nested more deeply than any legitimate file
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
        seen[id(value)] = None  # a tuple inside itself
        seen[id(value)] = tuple(_plain(item, seen) for item in value)
        return seen[id(value)]
    if isinstance(value, Array):
        return value.value
    return value if isinstance(value, str | bytes | int | float | complex | torch.Tensor | np.ndarray) else None


TRUST_HINT = f'if you trust its author with your computer, add {param("trust_checkpoint")}'
# Names in every checkpoint.
_USUAL = re.compile(r'torch\._utils\._rebuild_\w+|torch\.\w*Storage|collections\.OrderedDict|_codecs\.encode')
_LOCK = threading.Lock()


def read_pickle(path: Path, trust: bool = False) -> Any:
    """Reads a file written by ``torch.save``, in the zip format or the older one, onto the CPU.

    Args:
        path: The file.
        trust: Whether it is read with Python's own pickle, which runs any code in the file.

    Returns:
        The saved object; anything but tensors, numbers, text and containers is a stand-in (see :func:`plain`).

    Raises:
        InputError: The file is empty, truncated, not a PyTorch file, or names anything that is not permitted.
    """
    _check_head(path)
    _refuse_bomb(path)
    names = _names(path)
    try:
        if trust:
            return torch.load(path, map_location='cpu', weights_only=False)
        with _allowing(names), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about pickle protocols and storage types; a user cannot act on them
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise (_damaged(path) if trust else _refused(path, str(error), names)) from error
    except (ImportError, AttributeError) as error:
        if not trust:
            raise _damaged(path) from error
        problem = f'{path} needs a class that cannot be imported here ({error})'
        hint = 'make it importable, or save the state_dict alone'
        raise InputError(problem, hint=hint, parameter='checkpoint') from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a seek before the start of the file, as in a small archive without its end
            raise _damaged(path) from error
        raise InputError(f'{path} cannot be read ({error.strerror or error})', parameter='checkpoint') from error
    except Exception as error:  # a damaged file can fail anywhere in the reader, with any exception
        raise _damaged(path) from error


@contextmanager
def weights_only(only: bool = True) -> Iterator[None]:
    """Makes every ``torch.load`` within, whoever calls it, refuse pickles that could run code.

    Args:
        only: Whether to; false leaves everything as it is.
    """
    name = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(name)
    if only:
        os.environ[name] = '1'
    try:
        yield
    finally:
        if only and before is None:
            os.environ.pop(name, None)
        elif before is not None:
            os.environ[name] = before


@contextmanager
def _allowing(names: set[str]) -> Iterator[None]:
    """Makes the stand-ins the only extra names that PyTorch's reader permits, then restores the process's list."""
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(v, k) for k, v in STAND_INS.items()]
    allowed += [(stand_in, name) for name in names for family, stand_in in FAMILIES if family.fullmatch(name)]
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        try:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(allowed)
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _names(path: Path) -> set[str]:
    """Every ``module.name`` in the file. It selects stand-ins and words errors, but never permits anything."""
    names: set[str] = set()
    with suppress(Exception), open(path, 'rb') as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for entry in (name for name in archive.namelist() if name.endswith('data.pkl')):
                    with archive.open(entry) as record:
                        _collect_names(record, names)  # type: ignore[arg-type]
        else:
            file.seek(0)
            for _ in range(4):  # magic number, version, machine, content
                _collect_names(file, names)
    return names


def _collect_names(file: BinaryIO, names: set[str]) -> None:
    texts: list[str] = ['', '']  # the last two strings pushed, which STACK_GLOBAL joins
    memo: list[str] = []
    last = ''
    for code, argument, _ in pickletools.genops(file):
        if code.name in ('GLOBAL', 'INST'):
            module, _, name = str(argument).partition(' ')
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            names.add(f'{module}.{name}')
        elif code.name == 'STACK_GLOBAL':
            names.add('.'.join(texts))
        elif code.name == 'MEMOIZE':
            memo.append(last)
        last = argument if isinstance(argument, str) else ''
        if 'BINGET' in code.name and isinstance(argument, int) and argument < len(memo):
            last = memo[argument]
        if last:
            texts = [texts[-1], last]


def _check_head(path: Path) -> None:
    """Recognizes, by their first bytes, files that are not checkpoints."""
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror or error})', parameter='checkpoint') from error
    if head.startswith((b'PK', b'\x80')):
        return
    hint = 'download or copy it again'
    if not head:
        problem = f'{path} is empty'
    elif head.startswith(b'version https://git-lfs'):
        problem, hint = f'{path} is a Git LFS pointer, not the file itself', 'run git lfs pull in its repository'
    elif head.lstrip()[:1] == b'<':
        problem = f'{path} is a web page, not a checkpoint'
    elif all(byte in b'\t\n\r' or 32 <= byte < 127 for byte in head):
        problem = f'{path} is a text file, not a checkpoint'
    else:
        problem = f'{path} is not a PyTorch checkpoint'
    accepted = 'a file written by torch.save, or .safetensors'
    raise InputError(problem, accepted=accepted, hint=hint, parameter='checkpoint')


def _refuse_bomb(path: Path) -> None:
    """Raises for a zip file that unpacks to much more than its size; ``torch.save`` does not compress."""
    size = 0
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # a damaged archive is reported by the reader
        size = sum(entry.file_size for entry in archive.infolist())
    on_disk = path.stat().st_size
    if size > 4 * on_disk + (1 << 20):
        problem = f'{path} has {on_disk:,} bytes and unpacks to {size:,}: torch.save does not compress'
        raise InputError(problem, accepted='a file written by torch.save', parameter='checkpoint')


def _refused(path: Path, message: str, names: set[str]) -> InputError:
    """PyTorch's refusal as an error that gives the name at fault and the next step."""
    found = re.search(r'GLOBAL (\S+)(?: was not an allowed| whose module)', message)
    foreign = sorted(name for name in names - STAND_INS.keys() if not _USUAL.fullmatch(name))
    if found:
        module, _, attribute = found[1].rpartition('.')
        name = f'{IMPORT_MAPPING.get(module, module or "builtins")}.{attribute}'
    elif foreign and 'Unsupported operand' in message:
        name = foreign[0]
    elif 'Unsupported operand' in message:
        problem = f'{path} is damaged, or pickled with a protocol that the safe reader does not support'
        return InputError(problem, hint=f'save it again with torch.save; {TRUST_HINT}', parameter='checkpoint')
    elif re.search('unrecognized function|Can only|persistent', message):
        problem = f'{path} does more than hold weights'
        return InputError(problem, hint=f'do not use it; {TRUST_HINT}', parameter='checkpoint')
    else:
        return _damaged(path)
    if any(known.startswith('torch.nn.modules.') for known in {*names, name}):
        problem = f'{path} contains a whole pickled model, whose classes could run code when loaded ({name})'
        return InputError(problem, hint=f'save model.state_dict() instead; {TRUST_HINT}', parameter='checkpoint')
    problem = f'{path} names {name}, which could run code when loaded'
    return InputError(problem, hint=TRUST_HINT, parameter='checkpoint')


def _damaged(path: Path) -> InputError:
    problem = f'{path} is truncated, damaged, or not written by torch.save'
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        if any(name.endswith('constants.pkl') for name in archive.namelist()):
            problem = f'{path} is a TorchScript archive'
            return InputError(problem, accepted='a state_dict saved by torch.save', parameter='checkpoint')
    return InputError(problem, hint='download or save it again', parameter='checkpoint')
