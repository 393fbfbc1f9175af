"""The installed packages that vistool stands on, and their versions."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import PurePosixPath
from typing import Any, TextIO, TypeVar, cast
from urllib.parse import urlsplit

__version__ = '0.1.0'

log = logging.getLogger('vistool')

T = TypeVar('T')

_PACKAGES = (
    'torch',
    'torchvision',
    'numpy',
    'onedl-mmengine',
    'onedl-mmcv',
    'onedl-mmpretrain',
    'timm',
    'transformers',
)
_SHARED_NAMES = ('mmengine', 'mmcv', 'mmpretrain')
"""Import names that OpenMMLab's package and OneDL's maintained build (``onedl-…``) share."""
_BREAKING_TRANSFORMERS = 5
_SUMMARY = 'Shows what a vision model'
"""How the description of this distribution begins (``setup.cfg``)."""


def installed_version(package: str) -> str | None:
    """The version of an installed package, by the name that pip knows; None if it is not installed."""
    import importlib.metadata  # not at the top: the package itself imports this module for its version

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def versions() -> dict[str, str]:
    """Versions of vistool, Python and the installed packages on which numbers depend."""
    found = {name: version for name in _PACKAGES if (version := installed_version(name)) is not None}
    return {'vistool': __version__, 'python': '.'.join(map(str, sys.version_info[:3])), **found}


@functools.cache
def warn_of_environment() -> None:
    """Warns, once, of packages that are known to break vistool; one line for each."""
    for clash in known_clashes():
        log.warning('%s', clash)


def known_clashes() -> list[str]:
    """What is known to break vistool in this environment, and the remedy; a sentence for each."""
    found = []
    both = [name for name in _SHARED_NAMES if installed_version(name) and installed_version(f'onedl-{name}')]
    if both:
        pairs = ', '.join(f'{name} and onedl-{name}' for name in both)
        found.append(f'{pairs} are both installed and overwrite each other: install vistool into a fresh environment')
    transformers = installed_version('transformers')
    if transformers and int(transformers.partition('.')[0]) >= _BREAKING_TRANSFORMERS:
        found.append(
            f'transformers {transformers} is installed, with which models of mmpretrain fail: '
            "pip install 'transformers>=4.56,<5'"
        )
    if _other_vistool():
        found.append(
            'another project called vistool is installed and shadows parts of this one: pip uninstall vistool, then '
            'install this one again'
        )
    return found


def _other_vistool() -> bool:
    """Whether the distribution called vistool is the unrelated one that PyPI has under this name."""
    import importlib.metadata

    try:
        summary = importlib.metadata.metadata('vistool')['Summary'] or ''
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return False
    return not summary.startswith(_SUMMARY)


_ABSOLUTE = re.compile(r'(?<![\w/.~\\-])/(?!/)[^\s\'",;:=()\[\]{}]+')
_ELSEWHERE = re.compile(r'(?<![\w/.~-])(?:~[\w.-]*|\.\.)/[^\s\'",;:=()\[\]{}]*')
"""What lies below a home or above the current folder."""
_URL = re.compile(r'\b(?:https?|ftp|file|ssh|git|s3|gs)://[^\s\'",;()\[\]{}]+')
_UNTOLD = 'anonymous'
"""What stands for the name of a user or a machine."""
_OF_MANY = {
    'root', 'user', 'users', 'home', 'admin', 'ubuntu', 'debian', 'localhost', 'docker', 'runner', 'vscode', 'jovyan',
    'work', 'workspace', 'data', 'none', 'default', 'model', 'test', 'train', 'val',
}  # fmt: skip
"""Names of users and machines that tell nobody, and that may mean something else."""
_USER = ('USER', 'LOGNAME', 'USERNAME')
_anonymous = False


def is_anonymous() -> bool:
    """Whether files are to say nothing that tells who made them; see :func:`anonymous_files`."""
    return _anonymous


def anonymized(value: T) -> T:
    """What files say that keep whole paths otherwise: shortened within :func:`anonymous_files`, else as it is."""
    return cast(T, shareable(value)) if _anonymous else value


def shareable(value: Any) -> Any:
    """A value for a file that people share, without paths of this machine: no home, no user, no folder of its own.

    What lies below the current folder becomes relative to it, what lies below the home folder begins with ``~``, and of
    any other absolute path the last two parts stay. Within :func:`anonymous_files` the last part stays of everything
    that lies outside the current folder, and of URLs; the names of the user and of the machine become ``anonymous``.

    Args:
        value: Text, or lists and mappings with text in them; everything else stays.
    """
    if isinstance(value, str):
        return _shareable_text(value) if '/' in value or _anonymous else value
    if isinstance(value, Mapping):
        return {key: shareable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shareable(each) for each in value) if type(value) in (list, tuple) else value
    return value


def as_typed(path: str | os.PathLike[str]) -> str:
    """A path as a command line names it: relative where it lies below the current folder."""
    whole = os.path.abspath(path)
    try:
        found = os.path.relpath(whole)
    except ValueError:  # another drive
        return whole
    return whole if found.split(os.sep)[0] == os.pardir else found


def _shareable_text(text: str) -> str:
    if _anonymous:
        text = _URL.sub(lambda found: _file_of(found[0]), text)
    for folder, short in ((os.getcwd(), '.'), (os.path.expanduser('~'), '~')):
        if len(folder) > 1:
            text = re.sub(f'{re.escape(folder)}(?=/|$|[\\s\'"])', short, text)
    text = re.sub(r'(?<![\w.~/])\./(?=\S)', '', text)
    whole = re.match(r'/|~[\w.-]*/|\.\./', text) is not None and not re.search(r'[\'"=]|\s[/~]|\s\.\./', text)
    if _anonymous and not whole:
        text = _ELSEWHERE.sub(lambda found: _last_part(found[0]), text)
    whole = whole and (_anonymous or text.startswith('/'))
    text = _tail(text) if whole else _ABSOLUTE.sub(lambda found: _tail(found[0]), text)
    return _without_names(text) if _anonymous else text


def _tail(path: str) -> str:
    """The last two parts of an absolute path, without a user's name; one where files are anonymous."""
    if _anonymous:
        return _last_part(path)
    parts = [part for part in path.split('/') if part]
    user = os.path.basename(os.path.expanduser('~'))
    kept = [part for part in parts[-2:] if part != user or user == 'root']
    return '/'.join(kept) if len(parts) > 1 else path


def _last_part(path: str) -> str:
    """A file's or folder's own name; ``.`` for a home or a folder above."""
    last = path.rstrip('/').rpartition('/')[2]
    return '.' if last in ('', '..') or last.startswith('~') else last


def _file_of(url: str) -> str:
    """The name of the file that a URL names; ``anonymous`` where it names none."""
    last = PurePosixPath(urlsplit(url).path)
    return last.name if last.suffix else _UNTOLD


def _without_names(text: str) -> str:
    """Text without the names of the user and of the machine, where they stand as words."""
    users = (os.path.basename(os.path.expanduser('~')), *(os.environ.get(name, '') for name in _USER))
    names = _pattern_of(users, platform.node())
    return names.sub(_UNTOLD, text) if names is not None else text


@functools.lru_cache(maxsize=4)
def _pattern_of(users: tuple[str, ...], host: str) -> re.Pattern[str] | None:
    """Finds these names as words; None where all of them are common."""
    names = {*users, host, host.partition('.')[0]}
    told = sorted((name for name in names if len(name) > 1 and name.lower() not in _OF_MANY), key=len, reverse=True)
    words = '|'.join(map(re.escape, told))
    return re.compile(rf'(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])', re.IGNORECASE) if told else None


_NOTICE = 'Could not import OneDL'
"""Printed by mmpretrain when it is imported without an optional package that vistool has no use for."""
_WARNING = 'Fail to import ``MultiScaleDeformableAttention``'
"""The like, of mmcv."""


class SharedContext:
    """A context that changes the whole process: entered with the first thread that is inside, left with the last.

    Threads that each put back what they found would leave the process as one of the others had made it.
    """

    def __init__(self, context: Callable[[], AbstractContextManager[object]]) -> None:
        self._context, self._lock, self._count = context, threading.Lock(), 0
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._count:
                self._entered.enter_context(self._context())
            self._count += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                self._entered.close()


@contextmanager
def anonymous_files(active: bool = True) -> Iterator[None]:
    """Lets every file that this process writes meanwhile say nothing that tells who made it, and where.

    It holds for all threads, until the last of them has left. Inside, :func:`shareable` and :func:`anonymized` keep
    less.

    Args:
        active: False changes nothing, so that an outer call stays in force.
    """
    with _anonymous_files if active else contextlib.nullcontext():
        yield


@contextmanager
def _saying_nothing() -> Iterator[None]:
    global _anonymous
    _anonymous = True
    try:
        yield
    finally:
        _anonymous = False


_anonymous_files = SharedContext(_saying_nothing)


@contextmanager
def without_import_notices() -> Iterator[None]:
    """Hides what mmpretrain and mmcv say of optional packages while they are imported; all else is passed on."""
    with _without_notices:
        yield


@contextmanager
def _hiding_notices() -> Iterator[None]:
    with contextlib.redirect_stdout(cast(TextIO, _WithoutNotice(sys.stdout))), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=_WARNING)
        yield


_without_notices = SharedContext(_hiding_notices)


class _WithoutNotice:
    """A stream without :data:`_NOTICE` and the end of its line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._dropped = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes ``text`` unless it belongs to the notice."""
        drop = text.strip() == _NOTICE or (self._dropped and text == '\n')
        self._dropped = drop and not text.endswith('\n')
        return len(text) if drop else self._stream.write(text)
