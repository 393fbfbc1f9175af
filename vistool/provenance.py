"""How a result came about, as plain JSON values: what goes into the raw file's ``recipe``."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistool import __version__

if TYPE_CHECKING:
    from vistool.data.samples import Sample

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


@cache
def versions() -> dict[str, str]:
    """Versions of vistool, Python and the packages that decide about numbers; absent ones are left out."""
    found = {'vistool': __version__, 'python': '.'.join(map(str, sys.version_info[:3]))}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def of_sample(sample: Sample) -> dict[str, Any]:
    """What a provenance says of an image: its file, label, and the way from network pixels to its own."""
    geometry = sample.geometry
    return {
        'image': None if sample.path is None else str(sample.path),
        'label': sample.label,
        'geometry': None
        if geometry is None
        else {
            'matrix': geometry.matrix.tolist(),
            'network_size': list(geometry.network_size),
            'original_size': list(geometry.original_size),
            'exact': geometry.exact,
        },
    }


def command(name: str, argv: list[str] | None = None) -> str:
    """The command line as it was typed, with the program's bare name."""
    return shlex.join([Path(name).stem, *(sys.argv[1:] if argv is None else argv)])


def what_alone(command: str, carried_out: Mapping[str, int | None]) -> str:
    """A command line without the options that say how it is carried out and where its files go.

    Args:
        command: As :func:`command` gives it.
        carried_out: Option, with dashes → how many values follow it (None: all words up to the next option).
    """
    kept: list[str] = []
    drop: int | None = 0
    for word in shlex.split(command):
        name = word.partition('=')[0].replace('_', '-') if word.startswith('--') else word
        if name in carried_out:
            drop = 0 if '=' in word else carried_out[name]
        elif drop is None and not word.startswith('-'):
            continue
        elif drop:
            drop -= 1
        else:
            drop = 0
            kept.append(word)
    return shlex.join(kept)
