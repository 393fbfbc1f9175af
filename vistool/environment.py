"""The installed packages that vistool stands on."""

from __future__ import annotations

import functools
import importlib.metadata
import logging

log = logging.getLogger('vistool')

TWINS = ('mmengine', 'mmcv', 'mmpretrain')
"""Import names that OpenMMLab's package and OneDL's maintained build (``onedl-…``) share."""


@functools.cache
def warn_of_overwritten_packages() -> None:
    """Warns, once, where a package and its maintained build are both installed: they overwrite each other's files."""
    both = [name for name in TWINS if _installed(name) and _installed(f'onedl-{name}')]
    if both:
        pairs = ', '.join(f'{name} and onedl-{name}' for name in both)
        log.warning('%s are both installed and overwrite each other: install vistool into a fresh environment', pairs)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
