"""ROAD's linear imputation: each removed pixel becomes the weighted mean of its neighbors.

Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML 2022. For each copy of an
image that is a sparse linear system, symmetric and positive definite. Copies are solved in batches on the image's
device, by conjugate gradients with multigrid as the preconditioner (Tatebe, Copper Mountain 1993). That takes about ten
iterations, whatever the shape of the holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

_OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""From a cell to those of its eight neighbors that come after it, row by row."""

_WEIGHTS = (1 / 6, 1 / 6, 1 / 12, 1 / 12)
"""ROAD's weights of those neighbors."""

_COARSEST = 4
"""A grid with a side this short is solved by the smoother alone."""

_TOLERANCE = {torch.float64: 1e-12}
_TOLERANCE_OTHERWISE = 3e-5
"""The estimated error at which iterations end, as a share of the range of the image's values, by its type."""

_PRECISE = 1e-2
"""The share of an error down to which single precision is trusted to reduce it."""

_MOST = 100
"""Iterations, if the tolerance is not reached."""

_AT_ONCE = {'cpu': 2**20}
_AT_ONCE_ELSEWHERE = 2**24
"""Pixel values that are solved at once: what a processor's cache holds, or what bounds a GPU's memory to about 2 GB."""


def fill(image: Tensor, removed: Tensor) -> Tensor:
    """Copies of an image, each with its removed pixels solved for.

    Args:
        image: ``(C, H, W)``.
        removed: bool ``(N, H, W)``; in each copy something is removed and something is left.

    Returns:
        ``(N, C, H, W)``, like the image. Removed pixels differ from the exact solution by less than 1e-4 of the image's
        range, and by rounding errors if it is float64.
    """
    work = image.detach().to('cpu' if image.device.type == 'mps' else image.device).double()  # mps has no float64
    count = max(1, _AT_ONCE.get(work.device.type, _AT_ONCE_ELSEWHERE) // work.numel())
    tolerance = _TOLERANCE.get(image.dtype, _TOLERANCE_OTHERWISE) * float(work.max() - work.min())
    parts = [_filled(work, part[:, None], tolerance).to(image) for part in removed.to(work.device).split(count)]
    return torch.cat(parts)


def _filled(image: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    unknown = removed.to(image)
    grids = [_Grid.of(unknown.float())]
    while min(grids[-1].leak.shape[2:]) > _COARSEST:
        grids.append(grids[-1].coarser())
    stencil = _Stencil(unknown)
    right = stencil.sums(image * (1 - unknown)).sub_(image * (1 - unknown), alpha=4).mul_(unknown / 12)
    solution = _conjugate_gradients(grids, stencil, right, tolerance)
    return torch.where(removed, solution, image)


@dataclass(frozen=True, eq=False)
class _Stencil:
    """The linear system of the pixels: the eight neighbors weigh 1/6 beside and 1/12 across, (sums − 4 · pixel) / 12.

    Attributes:
        unknown: ``(N, 1, H, W)``, 1 where a pixel is solved for, else 0.
    """

    unknown: Tensor

    @staticmethod
    def sums(values: Tensor) -> Tensor:
        """The 3×3 sums with weights 1, 2, 1 along both axes; nothing is outside the image."""
        for axis in (3, 2):
            most, doubled = values.shape[axis] - 1, values * 2
            doubled.narrow(axis, 0, most).add_(values.narrow(axis, 1, most))
            doubled.narrow(axis, 1, most).add_(values.narrow(axis, 0, most))
            values = doubled
        return values

    @cached_property
    def total(self) -> Tensor:
        """The weights of a pixel's neighbors inside the image."""
        ones = torch.ones_like(self.unknown[:1])
        return (self.sums(ones) - 4) / 12

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        return self.unknown * (self.total + 1 / 3), self.unknown / 12

    def apply(self, values: Tensor) -> Tensor:
        """The system's matrix times values that are 0 where nothing is solved for."""
        own, around = self._parts
        return (own * values).addcmul_(around, self.sums(values), value=-1)

    def rest(self, right: Tensor, values: Tensor) -> Tensor:
        """What the right side exceeds the matrix times the values by."""
        own, around = self._parts
        return torch.addcmul(right, own, values, value=-1).addcmul_(around, self.sums(values))


def _conjugate_gradients(grids: Sequence[_Grid], exact: _Stencil, right: Tensor, tolerance: float) -> Tensor:
    """Solves the system of every image and channel, each with steps of its own.

    It works in single precision and replaces the residual by one in double precision before rounding errors show (van
    der Vorst and Ye, SIAM J. Sci. Comput. 2000).
    """
    system = _Stencil(grids[0].unknown)
    solution, residual = torch.zeros_like(right), right.float()
    direction, before, part = residual, residual.new_zeros(()), torch.zeros_like(residual)
    start = 0.0
    for _ in range(_MOST):
        correction = _cycle(grids, residual)  # close to the error that is left
        error = float(correction.abs().max())
        if error <= tolerance:
            return solution.add_(part).add_(correction)
        start = start or error
        if error <= _PRECISE * start:
            solution, part, start = solution.add_(part), torch.zeros_like(part), error
            residual = exact.rest(right, solution).float()
        product = (correction * residual).sum((2, 3), keepdim=True)
        direction = correction.addcmul_(_quotient(product, before), direction)
        applied = system.apply(direction)
        step = _quotient(product, (direction * applied).sum((2, 3), keepdim=True))
        part, residual, before = part.addcmul_(step, direction), residual.addcmul(step, applied, value=-1), product
    return solution.add_(part)


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """Their quotient; 0 where there is nothing to divide by, as for a channel that is solved."""
    return torch.where(below > 0, above / below, torch.zeros_like(above))


@dataclass(frozen=True, eq=False)
class _Grid:
    """The linear system on one grid: cells joined by edges, and tied to pixels that are known.

    Attributes:
        edges: Weights ``(N, 1, h, w)`` of the edges from each cell to the neighbors at the four offsets.
        leak: ``(N, 1, h, w)``, the weight of each cell's edges to known pixels.
        stencil: The same system, where the cells are pixels.
    """

    edges: tuple[Tensor, ...]
    leak: Tensor
    stencil: _Stencil | None = None

    @classmethod
    def of(cls, unknown: Tensor) -> _Grid:
        """The grid of the pixels themselves; ``unknown`` ``(N, 1, H, W)`` is 1 where a pixel is solved for, else 0."""
        edges = []
        for weight, offset in zip(_WEIGHTS, _OFFSETS, strict=True):
            here, there = _ends(unknown, offset)
            edges.append(torch.zeros_like(unknown))
            edges[-1][here] = weight * unknown[here] * unknown[there]
        stencil = _Stencil(unknown)
        return cls(tuple(edges), stencil.apply(unknown), stencil)

    @cached_property
    def total(self) -> Tensor:
        """The weight of all edges of a cell."""
        total = self.leak.clone()
        for edge, offset in zip(self.edges, _OFFSETS, strict=True):
            here, there = _ends(edge, offset)
            total[here] += edge[here]
            total[there] += edge[here]
        return total

    @cached_property
    def unknown(self) -> Tensor:
        """1 for cells that hold an unknown pixel, else 0."""
        return (self.total > 0).to(self.total)

    @cached_property
    def step(self) -> Tensor:
        """What Jacobi's method multiplies a residual with."""
        return self.unknown / torch.where(self.total > 0, self.total, torch.ones_like(self.total))

    def rest(self, right: Tensor, values: Tensor) -> Tensor:
        """What the right side exceeds the system's matrix times the values by."""
        if self.stencil is not None:
            return self.stencil.rest(right, values)
        result = torch.addcmul(right, self.total, values, value=-1)
        for edge, offset in zip(self.edges, _OFFSETS, strict=True):
            here, there = _ends(edge, offset)
            joined = edge[here]
            result[here].addcmul_(joined, values[there])
            result[there].addcmul_(joined, values[here])
        return result

    def coarser(self) -> _Grid:
        """The grid of cells of 2×2 cells.

        An edge's weight is that of all edges between two cells, halved because they are twice as far apart. What ties
        cells to known pixels adds up.
        """
        height, width = self.leak.shape[2:]
        padded = [F.pad(each, (0, width % 2, 0, height % 2)) for each in (*self.edges, self.leak)]
        right, below, falling, rising, leak = ([[e[..., y::2, x::2] for x in (0, 1)] for y in (0, 1)] for e in padded)
        beside = right[0][1] + right[1][1] + falling[0][1]
        beside[..., :-1] += rising[0][0][..., 1:]
        edges = (
            beside,
            below[1][0] + below[1][1] + falling[1][0] + rising[1][1],
            falling[1][1],
            rising[1][0],
        )
        return _Grid(tuple(edge / 2 for edge in edges), leak[0][0] + leak[0][1] + leak[1][0] + leak[1][1])


_Region: TypeAlias = 'tuple[EllipsisType, slice, slice]'


def _ends(grid: Tensor, offset: tuple[int, int]) -> tuple[_Region, _Region]:
    """The cells with a neighbor at an offset, and those neighbors."""
    (down, right), (height, width) = offset, grid.shape[2:]
    rows = slice(0, height - down), slice(down, height)
    columns = slice(max(-right, 0), width - max(right, 0)), slice(max(right, 0), width + min(right, 0))
    return (..., rows[0], columns[0]), (..., rows[1], columns[1])


def _cycle(grids: Sequence[_Grid], right: Tensor) -> Tensor:
    """One V-cycle of multigrid: an approximate solution, linear and symmetric in the right side."""
    grid = grids[0]
    values = grid.step * right
    if len(grids) == 1:
        for _ in range(2 * _COARSEST):
            values = torch.addcmul(values, grid.step, grid.rest(right, values))
        return values
    below = _cycle(grids[1:], _restricted(grid.rest(right, values)))
    values.addcmul_(_prolonged(below, right.shape), grid.unknown)
    return values.addcmul_(grid.step, grid.rest(right, values))


def _prolonged(coarse: Tensor, shape: Sequence[int]) -> Tensor:
    """Bilinear interpolation to the finer grid; beyond the image's edge its values continue."""
    for axis in (2, 3):
        size = coarse.shape[axis]
        padded = torch.cat([coarse.narrow(axis, 0, 1), coarse, coarse.narrow(axis, -1, 1)], axis)
        halves = [padded.narrow(axis, start, size).add(coarse, alpha=3) for start in (0, 2)]
        coarse = torch.stack(halves, axis + 1).flatten(axis, axis + 1).narrow(axis, 0, shape[axis])
    return coarse / 16


def _restricted(fine: Tensor) -> Tensor:
    """The transpose of the interpolation."""
    for axis in (3, 2):
        size = (fine.shape[axis] + 1) // 2
        if fine.shape[axis] % 2:
            fine = torch.cat([fine, torch.zeros_like(fine.narrow(axis, 0, 1))], axis)
        first, last = fine.unflatten(axis, (size, 2)).unbind(axis + 1)
        coarse = (first + last).mul_(3)
        coarse.narrow(axis, 0, size - 1).add_(first.narrow(axis, 1, size - 1))
        coarse.narrow(axis, 1, size - 1).add_(last.narrow(axis, 0, size - 1))
        coarse.narrow(axis, 0, 1).add_(first.narrow(axis, 0, 1))
        coarse.narrow(axis, -1, 1).add_(last.narrow(axis, -1, 1))
        fine = coarse
    return fine / 16
