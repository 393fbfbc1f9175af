"""The installed packages that vistool stands on, and their versions."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

__version__ = '0.1.0'

log = logging.getLogger('vistool')

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
            "pip install 'transformers>=4.53,<5'"
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


_ABSOLUTE = re.compile(r'(?<![\w:/.~\\-])/[^\s\'",;:=()\[\]{}]+')


def shareable(value: Any) -> Any:
    """A value for a file that people share, without paths of this machine: no home, no user, no folder of its own.

    What lies below the current folder becomes relative to it, what lies below the home folder begins with ``~``, and of
    any other absolute path the last two parts stay.

    Args:
        value: Text, or lists and mappings with text in them; everything else stays.
    """
    if isinstance(value, str):
        return _shareable_text(value) if '/' in value else value
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
    for folder, short in ((os.getcwd(), '.'), (os.path.expanduser('~'), '~')):
        if len(folder) > 1:
            text = re.sub(f'{re.escape(folder)}(?=/|$|[\\s\'"])', short, text)
    text = re.sub(r'(?<![\w.~/])\./(?=\S)', '', text)
    whole = text.startswith('/') and not re.search(r'[\'"=]|\s/', text)
    return _tail(text) if whole else _ABSOLUTE.sub(lambda found: _tail(found[0]), text)


def _tail(path: str) -> str:
    """The last two parts of an absolute path, without a user's name."""
    parts = [part for part in path.split('/') if part]
    user = os.path.basename(os.path.expanduser('~'))
    kept = [part for part in parts[-2:] if part != user or user == 'root']
    return '/'.join(kept) if len(parts) > 1 else path


_NOTICE = 'Could not import OneDL'
"""Printed by mmpretrain when it is imported without an optional package that vistool has no use for."""
_WARNING = 'Fail to import ``MultiScaleDeformableAttention``'
"""The like, of mmcv."""


@contextmanager
def without_import_notices() -> Iterator[None]:
    """Hides what mmpretrain and mmcv say of optional packages while they are imported; all else is passed on."""
    with contextlib.redirect_stdout(cast(TextIO, _WithoutNotice(sys.stdout))), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=_WARNING)
        yield


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
