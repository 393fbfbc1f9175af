"""Reads PyTorch's pickled files without running what they hold.

A pickle is a small program. PyTorch's ``weights_only`` reader runs it with a list of permitted names; while a file is
read here, that list holds, beyond PyTorch's own, nothing but the stand-ins of ``stand_ins``.
"""

from __future__ import annotations

import errno
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # protocol 2 writes the names of Python 2
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vistool.errors import InputError, param
from vistool.models.checkpoints.stand_ins import FAMILIES, STAND_INS

TRUST_HINT = f'if you trust its author with your computer, add {param("trust_checkpoint")}'
# What every checkpoint names.
_USUAL = re.compile(r'torch\._utils\._rebuild_\w+|torch\.\w*Storage|collections\.OrderedDict|_codecs\.encode')
_LOCK = threading.Lock()


def read_pickle(path: Path, trust: bool = False) -> Any:
    """Reads a file written by ``torch.save``, in the zip format or the older one, onto the CPU.

    Args:
        path: The file.
        trust: Read it with Python's own pickle, which runs any code in the file.

    Returns:
        What was saved; objects that are no tensors, numbers, text or containers are stand-ins (see :func:`plain`).

    Raises:
        InputError: The file is empty, truncated, no PyTorch file, or names anything beyond the permitted list.
    """
    _check_head(path)
    names = _names(path)
    try:
        if trust:
            return torch.load(path, map_location='cpu', weights_only=False)
        with _allowing(names), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about pickle protocols and storage types; nothing a user can act on
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
        if error.errno == errno.EINVAL:  # a jump to before the file's start, as in a small archive without its end
            raise _damaged(path) from error
        raise InputError(f'{path} cannot be read ({error.strerror or error})', parameter='checkpoint') from error
    except Exception as error:  # a damaged file can fail anywhere in the reader, with any type of exception
        raise _damaged(path) from error


@contextmanager
def _allowing(names: set[str]) -> Iterator[None]:
    """Makes the stand-ins the only extra names that PyTorch's reader permits, then puts the process's own list back."""
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
    """Every ``module.name`` that the file mentions. Used to choose stand-ins and to word errors, never to decide."""
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
    texts: list[str] = ['', '']  # the two last pushed, which STACK_GLOBAL joins
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
    """Tells files that are no checkpoints by their first bytes."""
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
        problem = f'{path} is no PyTorch checkpoint'
    accepted = 'a file written by torch.save, or .safetensors'
    raise InputError(problem, accepted=accepted, hint=hint, parameter='checkpoint')


def _refused(path: Path, message: str, names: set[str]) -> InputError:
    """Words PyTorch's refusal: which name, and what to do."""
    found = re.search(r'GLOBAL (\S+)(?: was not an allowed| whose module)', message)
    foreign = sorted(name for name in names - STAND_INS.keys() if not _USUAL.fullmatch(name))
    if found:
        module, _, attribute = found[1].rpartition('.')
        name = f'{IMPORT_MAPPING.get(module, module or "builtins")}.{attribute}'
    elif foreign and 'Unsupported operand' in message:
        name = foreign[0]
    elif 'Unsupported operand' in message:
        problem = f'{path} is damaged, or pickled in a protocol that the safe reader does not know'
        return InputError(problem, hint=f'save it again with torch.save; {TRUST_HINT}', parameter='checkpoint')
    elif re.search('unrecognized function|Can only|persistent', message):
        problem = f'{path} asks for more than to hold weights'
        return InputError(problem, hint=f'do not use it; {TRUST_HINT}', parameter='checkpoint')
    else:
        return _damaged(path)
    if any(known.startswith('torch.nn.modules.') for known in {*names, name}):
        problem = f'{path} holds a whole pickled model, of classes that could run code when loaded ({name})'
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
