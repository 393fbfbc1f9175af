"""The installed packages that vistool stands on, and their versions."""

from __future__ import annotations

import functools
import logging
import sys

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
def warn_of_overwritten_packages() -> None:
    """Warns, once, if a package and its maintained build are both installed: they overwrite each other's files."""
    both = [name for name in _SHARED_NAMES if installed_version(name) and installed_version(f'onedl-{name}')]
    if both:
        pairs = ', '.join(f'{name} and onedl-{name}' for name in both)
        log.warning('%s are both installed and overwrite each other: install vistool into a fresh environment', pairs)
