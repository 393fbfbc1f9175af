"""Reading arrays between their pixels, in continuous pixel coordinates (a centre is at ``i + 0.5``).

Plain numpy on purpose: OpenCV's warps round positions to 1/32 pixel, which shows when a 7x7 map is enlarged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Values = NDArray[np.float32]


def sample(values: Values, x: Floats, y: Floats, nearest: bool = False) -> Values:
    """Values ``(h, w[, C])`` at positions of any shape; the border value goes on outside."""
    h, w = values.shape[:2]
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    if nearest:
        return values[_cell(y, h), _cell(x, w)]
    (x0, x1, fx), (y0, y1, fy) = _neighbours(x, w), _neighbours(y, h)
    if values.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    top = values[y0, x0] * (1 - fx) + values[y0, x1] * fx
    bottom = values[y1, x0] * (1 - fx) + values[y1, x1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, np.float32)


def sample_grid(values: Values, x: Floats, y: Floats, nearest: bool = False) -> Values:
    """As :func:`sample` on the grid of every ``y`` (rows) with every ``x`` (columns)."""
    h, w = values.shape[:2]
    if nearest:
        return values[_cell(y, h)][:, _cell(x, w)]
    (x0, x1, fx), (y0, y1, fy) = _neighbours(x, w), _neighbours(y, h)
    tail = (1,) * (values.ndim - 2)
    fx, fy = fx.reshape(1, -1, *tail), fy.reshape(-1, 1, *tail)
    rows = values[y0] * (1 - fy) + values[y1] * fy
    return np.asarray(rows[:, x0] * (1 - fx) + rows[:, x1] * fx, np.float32)


def shrink(values: Values, scale: tuple[float, float]) -> Values:
    """Average cells together where a target pixel spans at least two of them, so that none is skipped.

    Args:
        values: ``(h, w[, C])``.
        scale: Cells per target pixel, down and across.
    """
    factors = [max(1, int(s)) for s in scale]
    if max(factors) < 2:
        return values
    import cv2

    h, w = (max(1, round(n / f)) for n, f in zip(values.shape[:2], factors, strict=True))
    out = cv2.resize(values, (w, h), interpolation=cv2.INTER_AREA)
    return np.asarray(out, np.float32).reshape(h, w, *values.shape[2:])


def field_at(field: Floats, points: Floats, matrix: Floats) -> Floats:
    """A field ``(h, w, 2)`` of positions read at points ``(N, 2)``; beyond its ends it goes on as ``matrix`` does."""
    h, w = field.shape[:2]
    limited = np.clip(points, 0.5, [w - 0.5, h - 0.5])
    (x0, x1, fx), (y0, y1, fy) = _neighbours(limited[..., 0], w), _neighbours(limited[..., 1], h)
    fx, fy = fx[..., None].astype(np.float64), fy[..., None].astype(np.float64)
    top = field[y0, x0] * (1 - fx) + field[y0, x1] * fx
    bottom = field[y1, x0] * (1 - fx) + field[y1, x1] * fx
    inside = top * (1 - fy) + bottom * fy + (points - limited) @ matrix[:2, :2].T
    return np.where(np.isnan(inside), points @ matrix[:2, :2].T + matrix[:2, 2], inside)


def invert_field(field: Floats, targets: Floats, guess: Floats, matrix: Floats) -> Floats:
    """Points ``(N, 2)`` whose field value is ``targets``: the nearest pixel, then a few quasi-Newton steps."""
    inverse, points = np.linalg.inv(matrix[:2, :2]), guess.copy()
    flat = np.nan_to_num(field.reshape(-1, 2), nan=np.inf)
    w = field.shape[1]
    for n, target in enumerate(targets):
        best = int(np.argmin(((flat - target) ** 2).sum(axis=1)))
        points[n] = best % w + 0.5, best // w + 0.5
    for _ in range(20):
        points += 0.7 * (targets - field_at(field, points, matrix)) @ inverse.T
    return points


def scatter_inverse(
    field: Floats, matrix: Floats, original: tuple[int, int], target: tuple[int, int]
) -> tuple[Floats, Floats]:
    """For each pixel of a ``target`` grid over the original, the network position that shows it; NaN where none does.

    The field is refined until neighbouring samples are less than a target pixel apart, and averaged per target pixel.
    """
    (h, w), (th, tw) = field.shape[:2], target
    scale = np.array([tw / original[1], th / original[0]])
    reach = max(np.nanmax(np.abs(np.diff(field * scale, axis=axis)), initial=1) for axis in (0, 1))
    fine = int(np.clip(np.ceil(1.5 * reach), 1, 32))
    x, y = np.meshgrid((np.arange(w * fine) + 0.5) / fine, (np.arange(h * fine) + 0.5) / fine)
    position = field_at(field, np.stack([x, y], axis=-1), matrix) * scale
    position[np.isnan(field[..., 0]).repeat(fine, axis=0).repeat(fine, axis=1)] = -1
    keep = ((position >= 0) & (position < [tw, th])).all(axis=-1)
    cell = position[keep].astype(np.intp) @ np.array([1, tw])
    count = np.bincount(cell, minlength=th * tw)
    with np.errstate(invalid='ignore'):
        found = [(np.bincount(cell, grid[keep], th * tw) / count).reshape(th, tw) for grid in (x, y)]
    return found[0], found[1]


def _cell(position: Floats, count: int) -> NDArray[np.intp]:
    return np.clip(np.floor(position), 0, count - 1).astype(np.intp)


def _neighbours(position: Floats, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Indices of the two pixels about a position, and the weight of the second."""
    index = np.clip(position - 0.5, 0, count - 1)
    low = np.floor(index).astype(np.intp)
    return low, np.minimum(low + 1, count - 1), (index - low).astype(np.float32)
