"""Where a network pixel lies in the original image.

Coordinates are continuous: x to the right, y down, pixel ``i`` covers ``[i, i + 1)``, its center is ``i + 0.5``. So a
resize maps edges to edges, with no half-pixel terms, and every matrix here acts on homogeneous ``(x, y, 1)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Size = tuple[int, int]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Values = NDArray[np.float32]

_EDGE = 1e-6  # pixels by which rounding may put a point on the border outside


@dataclass(frozen=True, eq=False)
class GeometricStep:
    """The inverse of one transform: it maps pixels after the transform to pixels before it.

    Attributes:
        matrix: ``(3, 3)``, after to before.
        before: ``(h, w)`` of the image that went in.
        after: ``(h, w)`` of the image that came out.
        erased: bool ``(h, w)`` of the output, True where the transform painted over the image; None if it did not.
        field: ``(h, w, 2)``, for each output pixel's center the ``(x, y)`` it shows, if no affine map fits; NaN
            where it shows nothing.
        exact: False if the transform's geometry could not be determined.
    """

    matrix: Matrix
    before: Size
    after: Size
    erased: Mask | None = None
    field: NDArray[np.float64] | None = None
    exact: bool = True


def window(before: Size, after: Size, left: float, top: float, width: float, height: float) -> GeometricStep:
    """A step that stretches a rectangle of the input over the output; beyond the input lies padding."""
    h, w = after
    return GeometricStep(np.array([[width / w, 0, left], [0, height / h, top], [0, 0, 1.0]]), before, after)


def resize(before: Size, after: Size) -> GeometricStep:
    """A resize of the whole image."""
    return window(before, after, 0, 0, before[1], before[0])


def crop(before: Size, after: Size, left: float, top: float) -> GeometricStep:
    """A crop with its corner at ``(left, top)``; what lies outside the input is padding."""
    return window(before, after, left, top, after[1], after[0])


def flip(size: Size, horizontal: bool = False, vertical: bool = False) -> GeometricStep:
    """A mirror image."""
    (h, w), (sx, sy) = size, (-1 if horizontal else 1, -1 if vertical else 1)
    return GeometricStep(np.array([[sx, 0, w * horizontal], [0, sy, h * vertical], [0, 0, 1.0]]), size, size)


def affine(before: Size, after: Size, forward: ArrayLike, centers: bool = True) -> GeometricStep:
    """A warp given by its forward matrix, ``(2, 3)`` or ``(3, 3)``, input to output.

    Args:
        before: Size of the input.
        after: Size of the output.
        forward: Maps input to output coordinates.
        centers: Whether integer coordinates in ``forward`` are pixel centers (OpenCV) or pixel corners.
    """
    matrix = np.vstack([np.asarray(forward, np.float64)[:2], [0, 0, 1]])
    if centers:
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
        matrix = shift @ matrix @ np.linalg.inv(shift)
    return GeometricStep(np.linalg.inv(matrix), before, after)


def erase(size: Size, rectangles: list[tuple[int, int, int, int]]) -> GeometricStep:
    """Rectangles ``(top, left, height, width)`` painted over; everything else stays in place."""
    erased = np.zeros(size, np.bool_)
    for top, left, height, width in rectangles:
        erased[top : top + height, left : left + width] = True
    return GeometricStep(np.eye(3), size, size, erased=erased if erased.any() else None)


@dataclass(frozen=True, eq=False)
class Geometry:
    """The map from network pixels to pixels of the original file.

    Attributes:
        matrix: ``(3, 3)`` affine, network to original.
        network_size: ``(H, W)`` of the network input, the data preprocessor's padding included.
        original_size: ``(H0, W0)`` of the file as a person sees it.
        invalid: bool ``(H, W)``, True where a network pixel shows no original pixel (padding, erased); None if all do.
        field: ``(H, W, 2)``, network pixel center to original ``(x, y)``, only if no affine map fits (``matrix`` is
            then the nearest one); NaN where invalid.
        exact: False if the effect of a transform is not known; maps can then be drawn over the network's view only.
    """

    matrix: Matrix
    network_size: Size
    original_size: Size
    invalid: Mask | None = None
    field: NDArray[np.float64] | None = None
    exact: bool = True

    @classmethod
    def identity(cls, size: Size) -> Geometry:
        """The network sees the original unchanged."""
        return cls(np.eye(3), (int(size[0]), int(size[1])), (int(size[0]), int(size[1])))

    def then(self, step: GeometricStep) -> Geometry:
        """The geometry after one more transform."""
        if step.before != self.network_size:
            raise ValueError(f'the step starts from {step.before}, the image has {self.network_size}')
        return Geometry(
            matrix=self.matrix @ step.matrix,
            network_size=step.after,
            original_size=self.original_size,
            invalid=self._invalid_after(step),
            field=self._field_after(step),
            exact=self.exact and step.exact,
        )

    def to_original(self, points: ArrayLike) -> NDArray[np.float64]:
        """Network ``(N, 2)`` points ``(x, y)`` in original pixels; points may lie outside both images."""
        points = np.asarray(points, np.float64)
        if self.field is None:
            return transform(self.matrix, points)
        return field_at(self.field, points, self.matrix)

    def to_network(self, points: ArrayLike) -> NDArray[np.float64]:
        """Original ``(N, 2)`` points ``(x, y)`` in network pixels, whether or not the network sees them."""
        points = np.asarray(points, np.float64)
        guess = transform(_inverse(self.matrix), points)
        if self.field is None:
            return guess
        return invert_field(self.field, points, guess, self.matrix)

    def crop(self) -> NDArray[np.float64]:
        """Corners ``(4, 2)`` of the network's view in original pixels, clockwise from the view's top left."""
        h, w = self.network_size
        return self.to_original([[0, 0], [w, 0], [w, h], [0, h]])

    def warp(
        self,
        values: ArrayLike,
        size: Size | None = None,
        interpolation: Literal['bilinear', 'nearest'] = 'bilinear',
        rows: slice | None = None,
    ) -> tuple[NDArray[np.float32], Mask]:
        """Lays a map of the network input over the original image.

        Args:
            values: float ``(h, w)`` or ``(h, w, C)``; covers the whole network input, at any resolution.
            size: ``(h', w')`` of a grid that covers the whole original; default: the original's own.
            interpolation: How values between the cells are computed.
            rows: The rows of the grid that are wanted, ``slice(start, stop)``; None: all.

        Returns:
            The values on those rows of the grid, 0 where none are known, and the bool mask of the pixels that the
            network saw.
        """
        values = np.asarray(values, np.float32)
        (th, tw), (h, w), (oh, ow) = size or self.original_size, self.network_size, self.original_size
        to_target, nearest = np.diag([ow / tw, oh / th, 1.0]), interpolation == 'nearest'
        if self.field is not None:
            x, y = _inverse_rows(self, (th, tw), rows or slice(0, th))
        else:
            matrix = _inverse(self.matrix) @ to_target
            if not nearest:
                down, across = np.abs(matrix[1, :2]).max(), np.abs(matrix[0, :2]).max()
                values = shrink(values, (down * values.shape[0] / h, across * values.shape[1] / w))
            rows = rows or slice(0, th)
            x, y = _positions(matrix, (rows.stop - rows.start, tw), rows.start)
        covered = self._shown(x, y)
        read = sample_grid if x.ndim == 1 else sample
        out = read(values, x * (values.shape[1] / w), y * (values.shape[0] / h), nearest)
        out[~covered] = 0
        return out, covered

    def seen(self, mask: Mask) -> Mask:
        """A mask ``(H0, W0)`` of the original as the network sees it, bool ``(H, W)``: the value at pixel centers.

        What shows nothing of the original is False.
        """
        if self.field is not None:
            x, y = self.field[..., 0], self.field[..., 1]
        else:
            x, y = _positions(self.matrix, self.network_size)
        h, w = mask.shape
        columns, rows = (np.floor(np.nan_to_num(each, nan=-1.0)).astype(np.intp) for each in (x, y))
        in_x, in_y = (columns >= 0) & (columns < w), (rows >= 0) & (rows < h)
        columns, rows = columns.clip(0, w - 1), rows.clip(0, h - 1)
        if columns.ndim == 1:
            found = mask[np.ix_(rows, columns)] & in_y[:, None] & in_x
        else:
            found = mask[rows, columns] & in_y & in_x
        return found if self.invalid is None else found & ~self.invalid

    def describe(self) -> dict[str, Any]:
        """Plain JSON values, for a provenance."""
        return {
            'matrix': self.matrix.tolist(),
            'network_size': list(self.network_size),
            'original_size': list(self.original_size),
            'affine': self.field is None,
            'exact': self.exact,
        }

    def _shown(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Mask:
        """Which network positions show an original pixel; ``x`` and ``y`` are full grids, or one vector per axis."""
        h, w = self.network_size
        x, y = np.nan_to_num(x, nan=-1.0), np.nan_to_num(y, nan=-1.0)
        inside_x, inside_y = (x >= -_EDGE) & (x < w + _EDGE), (y >= -_EDGE) & (y < h + _EDGE)
        column, row = np.clip(x, 0, w - 1).astype(np.intp), np.clip(y, 0, h - 1).astype(np.intp)
        if x.ndim == 1:
            inside = inside_y[:, None] & inside_x[None, :]
            return inside if self.invalid is None else inside & ~self.invalid[np.ix_(row, column)]
        inside = inside_x & inside_y
        return inside if self.invalid is None else inside & ~self.invalid[row, column]

    def _invalid_after(self, step: GeometricStep) -> Mask | None:
        h, w = step.after
        if step.field is not None:
            shown = self._shown(step.field[..., 0], step.field[..., 1])
        else:
            corners = transform(step.matrix, np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float64))
            limit = np.array(self.network_size[::-1]) + _EDGE
            if self.invalid is None and (corners >= -_EDGE).all() and (corners <= limit).all():
                return step.erased
            shown = self._shown(*_positions(step.matrix, step.after))
        invalid = ~shown if step.erased is None else ~shown | step.erased
        return invalid if invalid.any() else None

    def _field_after(self, step: GeometricStep) -> NDArray[np.float64] | None:
        if self.field is None and step.field is None:
            return None
        before = step.field if step.field is not None else transform(step.matrix, _centers(step.after))
        field = self.to_original(before.reshape(-1, 2)).reshape(*step.after, 2)
        if (invalid := self._invalid_after(step)) is not None:
            field[invalid] = np.nan
        return field


def transform(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine ``(3, 3)`` matrix applied to points ``(..., 2)``."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _centers(size: Size, top: int = 0) -> NDArray[np.float64]:
    """Pixel centers ``(h, w, 2)``, from row ``top`` on."""
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(top, top + size[0]) + 0.5)
    return np.stack([x, y], axis=-1)


def _positions(matrix: Matrix, size: Size, top: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the pixel centers of a grid land: one vector per axis if the map does not mix the axes, else full grids.

    Args:
        matrix: ``(3, 3)``, affine.
        size: Rows and columns that are wanted.
        top: The first of those rows.
    """
    if matrix[0, 1] == 0 == matrix[1, 0]:
        x, y = np.arange(size[1]) + 0.5, np.arange(top, top + size[0]) + 0.5
        return x * matrix[0, 0] + matrix[0, 2], y * matrix[1, 1] + matrix[1, 2]
    moved = transform(matrix, _centers(size, top))
    return moved[..., 0], moved[..., 1]


def sample(values: Values, x: Floats, y: Floats, nearest: bool = False) -> Values:
    """Values ``(h, w[, C])`` at positions of any shape; outside, the value at the border is repeated."""
    h, w = values.shape[:2]
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    if nearest:
        return values[_cell(y, h), _cell(x, w)]
    (x0, x1, fx), (y0, y1, fy) = _neighbors(x, w), _neighbors(y, h)
    if values.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    top = values[y0, x0] * (1 - fx) + values[y0, x1] * fx
    bottom = values[y1, x0] * (1 - fx) + values[y1, x1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, np.float32)


def sample_grid(values: Values, x: Floats, y: Floats, nearest: bool = False) -> Values:
    """Like :func:`sample`, on the grid of every ``y`` (rows) with every ``x`` (columns)."""
    h, w = values.shape[:2]
    if nearest:
        return values[_cell(y, h)][:, _cell(x, w)]
    (x0, x1, fx), (y0, y1, fy) = _neighbors(x, w), _neighbors(y, h)
    tail = (1,) * (values.ndim - 2)
    fx, fy = fx.reshape(1, -1, *tail), fy.reshape(-1, 1, *tail)
    rows = values[y0] * (1 - fy) + values[y1] * fy
    return np.asarray(rows[:, x0] * (1 - fx) + rows[:, x1] * fx, np.float32)


def shrink(values: Values, scale: tuple[float, float]) -> Values:
    """Averages cells where a target pixel spans at least two of them, so that none is skipped.

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
    """A field ``(h, w, 2)`` of positions read at points ``(N, 2)``; beyond its ends it is extended by ``matrix``."""
    h, w = field.shape[:2]
    limited = np.clip(points, 0.5, [w - 0.5, h - 0.5])
    (x0, x1, fx), (y0, y1, fy) = _neighbors(limited[..., 0], w), _neighbors(limited[..., 1], h)
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


_INVERTED_SIDE = 1024
"""A field is inverted on a grid of at most this length, or twice the network's: its inverse is as smooth as a map."""


def _inverse_rows(geometry: Geometry, target: Size, rows: slice) -> tuple[Floats, Floats]:
    """Some rows of :func:`scatter_inverse`, which is interpolated where the target has more pixels than it needs."""
    coarse = (
        min(target[0], max(_INVERTED_SIDE, 2 * geometry.network_size[0])),
        min(target[1], max(_INVERTED_SIDE, 2 * geometry.network_size[1])),
    )
    x, y = _inverted(geometry, coarse)
    if coarse == target:
        return x[rows], y[rows]
    down = (np.arange(rows.start, rows.stop) + 0.5) * (coarse[0] / target[0])
    across = (np.arange(target[1], dtype=np.float64) + 0.5) * (coarse[1] / target[1])
    known = np.stack([x, y], axis=-1).astype(np.float32)
    smooth = sample_grid(known, across, down)
    nearest = sample_grid(known, across, down, nearest=True)  # beside places without an inverse
    found = np.where(np.isnan(smooth), nearest, smooth).astype(np.float64)
    return found[..., 0], found[..., 1]


@lru_cache(maxsize=1)
def _inverted(geometry: Geometry, size: Size) -> tuple[Floats, Floats]:
    """The inverse of a geometry's field, kept for the next rows and the next map of an image."""
    assert geometry.field is not None
    return scatter_inverse(geometry.field, geometry.matrix, geometry.original_size, size)


def scatter_inverse(
    field: Floats, matrix: Floats, original: tuple[int, int], target: tuple[int, int]
) -> tuple[Floats, Floats]:
    """For each pixel of a ``target`` grid over the original, the network position that shows it; NaN where none does.

    The field is refined until neighboring samples are less than a target pixel apart, and averaged per target pixel.
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


def _neighbors(position: Floats, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Indices of the two pixels around a position, and the weight of the second."""
    index = np.clip(position - 0.5, 0, count - 1)
    low = np.floor(index).astype(np.intp)
    return low, np.minimum(low + 1, count - 1), (index - low).astype(np.float32)
