"""Results made of nothing but numbers, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vistool.data.geometry import Geometry
from vistool.results import Coordinates, Heatmap, Heatmaps, Target


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


def center_crop(original: np.ndarray, size: int) -> tuple[np.ndarray, Geometry]:
    """The middle square of a photo, and the way back; no resizing, so that pixels stay pixels."""
    height, width = original.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    matrix = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64)
    return original[top : top + size, left : left + size].copy(), Geometry(matrix, (size, size), (height, width))


def heatmaps(
    rows: tuple[str, ...] = ('espresso 0.95',),
    columns: tuple[str | int, ...] = ('GradCAM',),
    kind: str = 'cam',
    size: tuple[int, int] = (160, 240),
    crop: int = 96,
    **more: object,
) -> Heatmaps:
    original = photo(*size)
    image, geometry = center_crop(original, crop)
    generator = np.random.default_rng(1)
    cells = 8
    names, targets = AXES[kind], [target(row) for row in rows]
    maps = tuple(
        Heatmap(
            generator.random((cells, cells), np.float32),
            Coordinates({'layer': 'layer', names[0]: shown.name, names[1]: column}),
            score=shown.score,
        )
        for shown in targets
        for column in columns
    )
    given = {'kind': kind, 'image': image, 'maps': maps, 'original': original, 'geometry': geometry}
    if kind == 'cam':
        given |= {'targets': tuple(targets), 'titles': {str(column): str(column) for column in columns}}
    return Heatmaps(**{**given, **more})


AXES = {'cam': ('target', 'method'), 'attention': ('query', 'head'), 'feature': ('query', 'layer')}
"""The coordinates that become rows and columns."""


def target(text: str) -> Target:
    """``'espresso 0.95'``, ``'cat'``."""
    name, _, score = text.rpartition(' ')
    return Target(name, 0, float(score)) if name else Target(text, 0)


def models(result: Heatmaps, names: Sequence[str], difference: bool = False) -> Heatmaps:
    """The same maps of several models, and the last one minus the first."""
    maps = [item.at(model=name) for name in names for item in result.maps]
    if difference:
        maps += [item.at(model=names[-1], minus=names[0]) for item in result.maps]
    return replace(result, maps=tuple(maps))
