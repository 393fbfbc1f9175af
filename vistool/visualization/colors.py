"""Color maps as tables of 256 RGB bytes, so that a picture can be colored without importing matplotlib."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError, close_matches

# Tables of matplotlib's color maps of these names (a test compares them), kept because importing matplotlib takes
# longer than drawing forty pictures.
_TABLES = Path(__file__).with_name('colormaps.npy')


@lru_cache(maxsize=1)
def _bundled() -> dict[str, NDArray[np.uint8]]:
    records = np.load(_TABLES, allow_pickle=False)
    return {str(record['name']): record['table'].copy() for record in records}


@lru_cache(maxsize=32)
def lookup_table(name: str) -> NDArray[np.uint8]:
    """The color map ``name`` as a read-only uint8 ``(256, 3)`` RGB table.

    Args:
        name: Any name that ``matplotlib.colormaps`` knows; upper and lower case are told apart as there.

    Raises:
        InputError: The name is unknown; the message lists close ones.
    """
    table = _bundled().get(name)
    if table is None:
        table = _from_matplotlib(name)
    table.setflags(write=False)
    return table


def _from_matplotlib(name: str) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    if name not in colormaps:
        near = close_matches(name, colormaps)
        raise InputError(
            f'unknown color map {name!r}',
            accepted='any matplotlib color map (jet, viridis, inferno, RdBu_r …)',
            hint=near,
            parameter='colormap',
        )
    colormap = colormaps[name].resampled(256)
    return np.asarray(colormap(np.arange(256), bytes=True))[:, :3].copy()
