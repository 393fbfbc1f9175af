"""Results made of nothing but numbers, for the tests of this folder."""

from __future__ import annotations

import numpy as np

from vistool.data.geometry import Geometry
from vistool.results import Heatmap, Heatmaps


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


def centre_crop(original: np.ndarray, size: int) -> tuple[np.ndarray, Geometry]:
    """The middle square of a photo, and the way back; no resizing, so that pixels stay pixels."""
    height, width = original.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    matrix = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64)
    return original[top : top + size, left : left + size].copy(), Geometry(matrix, (size, size), (height, width))


def heatmaps(
    rows: tuple[str, ...] = ('espresso 0.95',),
    columns: tuple[str, ...] = ('GradCAM',),
    kind: str = 'cam',
    size: tuple[int, int] = (160, 240),
    crop: int = 96,
    **more: object,
) -> Heatmaps:
    original = photo(*size)
    image, geometry = centre_crop(original, crop)
    generator = np.random.default_rng(1)
    cells = 8
    maps = tuple(
        Heatmap(generator.random((cells, cells), np.float32), f'{column}/{row}', 'layer', row, column)
        for row in rows
        for column in columns
    )
    return Heatmaps(**{'kind': kind, 'image': image, 'maps': maps, 'original': original, 'geometry': geometry, **more})
