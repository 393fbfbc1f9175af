"""ROAD's linear imputation: each removed pixel becomes the weighted mean of its neighbors.

Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML 2022. For each copy of an
image that is a sparse linear system, symmetric and positive definite. Copies are solved in batches on the image's
device, by conjugate gradients with multigrid as the preconditioner (Tatebe, Copper Mountain 1993). That takes about
seven iterations, whatever the shape of the holes.

An iteration does little but move memory. So all values lie in memory that is taken once (:class:`_Field`), in which the
neighbors of all cells are the same memory shifted.
"""

from __future__ import annotations

import math
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

_COARSEST = 100
"""A grid of so few cells is solved directly."""

_TOLERANCE = {torch.float64: 1e-12}
_TOLERANCE_OTHERWISE = 3e-5
"""The estimated error at which iterations end, as a share of the range of the image's values, by its type."""

_PRECISE = 1e-2
"""The share of an error down to which single precision is trusted to reduce it."""

_MOST = 100
"""Iterations, if the tolerance is not reached."""

_AT_ONCE = {'cpu': 2**19}
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
    count = math.ceil(len(removed) * work.numel() / _AT_ONCE.get(work.device.type, _AT_ONCE_ELSEWHERE))
    tolerance = _TOLERANCE.get(image.dtype, _TOLERANCE_OTHERWISE) * float(work.max() - work.min())
    with torch.inference_mode():
        parts = [_filled(work, part[:, None], tolerance).to(image) for part in removed.to(work.device).chunk(count)]
    return torch.cat(parts)


def _filled(image: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    channels = len(image)
    exact = _Pixels.of(removed.double(), channels)
    known = exact.field()
    torch.mul(image, ~removed, out=known.cells)
    right = exact.around(known).clone()
    solution = _conjugate_gradients(*_hierarchy(removed, channels), exact, right, tolerance)
    return torch.where(removed, solution.cells, image)


class _Field:
    """Values of the cells of grids, row after row in one stretch of memory, with zeros between rows and grids.

    The neighbors of all cells at one offset are then that memory, shifted.

    Attributes:
        memory: Everything, with a margin of zeros before and behind.
        stride: From a cell to the one below.
        planes: View ``(N, C, P)`` of the memory: each grid with the zeros behind its rows and its last row.
        rows: The same as ``(N, C, h + 1, w + 1)``.
        cells: View ``(N, C, h, w)`` of the values.
    """

    def __init__(self, shape: Sequence[int], like: Tensor) -> None:
        *planes, height, width = shape
        self.stride = width + 1
        self._margin = self.stride + 1
        self.memory = like.new_zeros(math.prod(planes) * (height + 1) * self.stride + 2 * self._margin)
        self.planes = self.memory[self._margin : -self._margin].view(*planes, -1)
        self.rows = self.planes.unflatten(-1, (height + 1, self.stride))
        self.cells = self.rows[..., :height, :width]

    def sums(self, out: _Field, scratch: _Field) -> None:
        """Writes to ``out`` the 3×3 sums with weights 1, 2, 1 along both axes, and between rows what means nothing."""
        here, between, sums, step = self.memory, scratch.memory, out.memory, self.stride
        torch.add(here[:-1], here[1:], out=between[:-1])
        torch.add(between[:-2], between[1:-1], out=sums[1:-1])
        torch.add(sums[1 : -1 - step], sums[1 + step : -1], out=between[1 : -1 - step])
        torch.add(between[1 : -1 - 2 * step], between[1 + step : -1 - step], out=sums[1 + step : -1 - step])


def _padded(values: Tensor) -> Tensor:
    """``(N, C, h, w)`` → ``(N, C, P)``, with zeros as in a field."""
    return F.pad(values, (0, 1, 0, 1)).flatten(2)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The linear system of the pixels: the eight neighbors weigh 1/6 beside and 1/12 across, (sums − 4 · pixel) / 12.

    Attributes:
        shape: ``(N, C, H, W)``.
        own: ``(N, 1, P)``, the matrix's diagonal and another 1/3, which the sums take away; 0 for known pixels.
        twelfth: ``(N, 1, P)``, 1/12 for unknown pixels, else 0.
        scratch: Two fields for intermediate results.
    """

    shape: Sequence[int]
    own: Tensor
    twelfth: Tensor
    scratch: tuple[_Field, _Field]

    @classmethod
    def of(cls, unknown: Tensor, channels: int) -> _Pixels:
        """The system; ``unknown`` ``(N, 1, H, W)`` is 1 where a pixel is solved for, else 0."""
        shape = len(unknown), channels, *unknown.shape[2:]
        own = unknown * (_inside(unknown) + 1 / 3)
        return cls(shape, _padded(own), _padded(unknown / 12), (_Field(shape, unknown), _Field(shape, unknown)))

    def field(self) -> _Field:
        """A field of zeros."""
        return _Field(self.shape, self.own)

    def around(self, values: _Field) -> Tensor:
        """A twelfth of the sums around unknown pixels ``(N, C, P)``, in a scratch field."""
        values.sums(*self.scratch)
        return self.scratch[0].planes.mul_(self.twelfth)

    def apply(self, values: _Field) -> Tensor:
        """The system's matrix times values that are 0 where nothing is solved for, in a scratch field."""
        values.sums(*self.scratch)
        sums, result = (each.planes for each in self.scratch)
        return torch.mul(self.own, values.planes, out=result).addcmul_(self.twelfth, sums, value=-1)


def _inside(like: Tensor) -> Tensor:
    """The weights of each pixel's neighbors inside the image, ``(1, 1, H, W)``."""
    sums = []
    for size in like.shape[2:]:
        places = torch.arange(size, device=like.device)
        sums.append(4 - (places == 0).to(like) - (places == size - 1).to(like))
    return ((sums[0][:, None] * sums[1] - 4) / 12)[None, None]


def _conjugate_gradients(
    top: _Finest, below: Sequence[_Coarse], exact: _Pixels, right: Tensor, tolerance: float
) -> _Field:
    """Solves the system of every image and channel, each with steps of its own.

    It works in single precision and replaces the residual by one in double precision before rounding errors show (van
    der Vorst and Ye, SIAM J. Sci. Comput. 2000).
    """
    system, solution, residual = top.system, exact.field(), top.right.planes.copy_(right)
    direction, part = system.field(), torch.zeros_like(residual)
    before, start = residual.new_zeros(()), 0.0
    for _ in range(_MOST):
        _cycle(top, below)
        correction = top.values  # close to the error that is left
        error = max(map(abs, map(float, torch.aminmax(correction.planes))))
        if error <= tolerance:
            solution.planes.add_(part).add_(correction.planes)
            return solution
        start = start or error
        if error <= _PRECISE * start:
            solution.planes.add_(part)
            residual.copy_(right - exact.apply(solution))
            part.zero_()
            start = error
        product = torch.linalg.vecdot(correction.planes, residual)[..., None]
        correction.planes.addcmul_(_quotient(product, before), direction.planes)
        top.values, direction, before = direction, correction, product
        applied = system.apply(direction)
        step = _quotient(product, torch.linalg.vecdot(direction.planes, applied)[..., None])
        part.addcmul_(step, direction.planes)
        residual.addcmul_(step, applied, value=-1)
    solution.planes.add_(part)
    return solution


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """Their quotient; 0 where there is nothing to divide by, as for a channel that is solved."""
    return torch.where(below > 0, above / below, torch.zeros_like(above))


@dataclass(frozen=True, eq=False)
class _Graph:
    """The linear system on one grid: cells joined by edges, and tied to pixels that are known.

    Attributes:
        edges: Weights ``(N, 1, h, w)`` of the edges from each cell to the neighbors at the four offsets.
        leak: ``(N, 1, h, w)``, the weight of each cell's edges to known pixels.
    """

    edges: tuple[Tensor, ...]
    leak: Tensor

    @classmethod
    def of(cls, unknown: Tensor) -> _Graph:
        """The grid of the pixels themselves; ``unknown`` ``(N, 1, H, W)`` is 1 where a pixel is solved for, else 0."""
        edges, pixels = [], _Pixels.of(unknown, 1)
        for weight, offset in zip(_WEIGHTS, _OFFSETS, strict=True):
            here, there = _ends(unknown, offset)
            edges.append(torch.zeros_like(unknown))
            torch.mul(unknown[here], unknown[there], out=edges[-1][here]).mul_(weight)
        known = pixels.field()
        known.cells.copy_(1 - unknown)
        pixels.around(known)
        return cls(tuple(edges), pixels.scratch[0].cells)

    @property
    def total(self) -> Tensor:
        """The weight of all edges of a cell."""
        total = self.leak.clone()
        for edge, offset in zip(self.edges, _OFFSETS, strict=True):
            here, there = _ends(edge, offset)
            total[here] += edge[here]
            total[there] += edge[here]
        return total

    def coarser(self) -> _Graph:
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
        return _Graph(tuple(edge / 2 for edge in edges), leak[0][0] + leak[0][1] + leak[1][0] + leak[1][1])


_Region: TypeAlias = 'tuple[EllipsisType, slice, slice]'


def _ends(grid: Tensor, offset: tuple[int, int]) -> tuple[_Region, _Region]:
    """The cells with a neighbor at an offset, and those neighbors."""
    (down, right), (height, width) = offset, grid.shape[2:]
    rows = slice(0, height - down), slice(down, height)
    columns = slice(max(-right, 0), width - max(right, 0)), slice(max(right, 0), width + min(right, 0))
    return (..., rows[0], columns[0]), (..., rows[1], columns[1])


class _Level:
    """One grid of multigrid: its system, in single precision, and the memory that its part of a cycle needs.

    Attributes:
        right: The right side.
        values: The approximate solution.
        scratch: Intermediate results.
        step: ``(N, 1, P)``, what Jacobi's method multiplies a residual with: 1 / the weight of all edges.
        share: ``(N, 1, P)``, what is taken from the coarser grid's sums: 0 for cells that hold no unknown pixel.
    """

    def __init__(self, total: Tensor, channels: int) -> None:
        shape = len(total), channels, *total.shape[2:]
        self.right, self.values, self.scratch = (_Field(shape, total) for _ in range(3))
        unknown = (total > 0).to(total)
        self.step = _padded(unknown / total.clamp(min=torch.finfo(total.dtype).tiny))
        self.share = _padded(unknown / 16**2)  # a sixteenth down, and a sixteenth up

    def around(self) -> Tensor:
        """The sum of each cell's edge weights times the values at their other ends, ``(N, C, P)``, in scratch."""
        raise NotImplementedError


class _Finest(_Level):
    """The grid of the pixels, where all edges of one direction weigh the same.

    Attributes:
        system: The same system.
    """

    def __init__(self, unknown: Tensor, channels: int) -> None:
        super().__init__(unknown * _inside(unknown), channels)
        self.system = _Pixels.of(unknown, channels)
        self.scratch = self.system.scratch[0]

    def around(self) -> Tensor:
        """The sum of each pixel's edge weights times the values at their other ends, ``(N, C, P)``, in scratch."""
        self.values.sums(*self.system.scratch)
        return self.scratch.planes.sub_(self.values.planes, alpha=4).mul_(self.system.twelfth)


class _Coarse(_Level):
    """A coarser grid."""

    def __init__(self, graph: _Graph, channels: int) -> None:
        super().__init__(graph.total, channels)
        self._graph = graph
        self._terms = self._products([_padded(edge) for edge in graph.edges])

    def _products(self, edges: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For both ends of each edge: views of the scratch there, of its weights, of the values at the other end."""
        terms = []
        for edge, (down, right) in zip(edges, _OFFSETS, strict=True):
            step = down * self.values.stride + right
            weights, ends = edge[..., :-step], (slice(None, -step), slice(step, None))
            for here, there in (ends, ends[::-1]):
                terms.append((self.scratch.planes[..., here], weights, self.values.planes[..., there]))
        return terms

    def around(self) -> Tensor:
        """The sum of each cell's edge weights times the values at their other ends, ``(N, C, P)``, in scratch."""
        sums = self.scratch.planes.zero_()
        for here, weights, there in self._terms:
            here.addcmul_(weights, there)
        return sums

    def solve(self) -> None:
        """Writes the exact solution, for a grid of few cells."""
        cells = self.values.cells
        cells.copy_((self._inverse @ self.right.cells.flatten(2).mT).mT.view(cells.shape))

    @cached_property
    def _inverse(self) -> Tensor:
        """Of the system's matrix, ``(N, h · w, h · w)``."""
        height, width = self.values.cells.shape[2:]
        cells = torch.arange(height * width, device=self._graph.leak.device).view(height, width)
        total = self._graph.total.flatten(1)
        matrix = torch.diag_embed(torch.where(total > 0, total, torch.ones_like(total)))
        for edge, offset in zip(self._graph.edges, _OFFSETS, strict=True):
            ends = _ends(edge, offset)
            here, there = (cells[end[1:]].flatten() for end in ends)
            matrix[:, here, there] = matrix[:, there, here] = -edge[ends[0]].flatten(1)
        return torch.linalg.inv(matrix.double()).to(matrix)


def _hierarchy(removed: Tensor, channels: int) -> tuple[_Finest, list[_Coarse]]:
    """The grid of the pixels, and the coarser ones below, at least one."""
    unknown, graph, below = removed.float(), _Graph.of(removed.float()), list[_Coarse]()
    while not below or math.prod(graph.leak.shape[2:]) > _COARSEST:
        graph = graph.coarser()
        below.append(_Coarse(graph, channels))
    return _Finest(unknown, channels), below


def _cycle(level: _Level, below: Sequence[_Coarse]) -> None:
    """One V-cycle of multigrid: approximate values, linear and symmetric in the right side."""
    right, values = level.right.planes, level.values.planes
    torch.mul(level.step, right, out=values)
    level.around()  # what this leaves of the right side
    _restrict(level.scratch, below[0].right)
    if len(below) > 1:
        _cycle(below[0], below[1:])
    else:
        below[0].solve()
    _prolong(below[0].values, level.scratch)
    values.addcmul_(level.share, level.scratch.planes)
    torch.add(right, level.around(), out=values).mul_(level.step)


def _prolong(coarse: _Field, fine: _Field) -> None:
    """Interpolates to the finer grid, bilinearly, times 16; beyond the image's edge values continue."""
    values, width = coarse.cells, fine.cells.shape[3]
    pairs = torch.complex(*_halves(values, 3))  # the fastest way to put every other number in between
    columns = torch.view_as_real(pairs).flatten(3)[..., :width]
    for start, half in zip((0, 1), _halves(columns, 2), strict=True):
        rows = fine.cells[..., start::2, :]
        rows.copy_(half[..., : rows.shape[2], :])


def _halves(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """3/4 of each value and 1/4 of the one before or behind, times 4."""
    size = values.shape[axis]
    before, behind = values * 3, values * 3
    for half, start, there in ((before, 1, 0), (behind, 0, 1)):
        half.narrow(axis, start, size - 1).add_(values.narrow(axis, there, size - 1))
        half.narrow(axis, (size - 1) * there, 1).add_(values.narrow(axis, (size - 1) * there, 1))
    return before, behind


def _restrict(fine: _Field, coarse: _Field) -> None:
    """Writes the transpose of the interpolation, times 16."""
    height, width = coarse.cells.shape[2:]
    rows = _pair_sums(fine.rows[..., : 2 * height, : 2 * width], 2)
    coarse.cells.copy_(_pair_sums(rows, 3))


def _pair_sums(values: Tensor, axis: int) -> Tensor:
    size = values.shape[axis] // 2
    first, last = values.unflatten(axis, (size, 2)).unbind(axis + 1)
    sums = (first + last).mul_(3)
    sums.narrow(axis, 0, size - 1).add_(first.narrow(axis, 1, size - 1))
    sums.narrow(axis, 1, size - 1).add_(last.narrow(axis, 0, size - 1))
    sums.narrow(axis, 0, 1).add_(first.narrow(axis, 0, 1))
    sums.narrow(axis, -1, 1).add_(last.narrow(axis, -1, 1))
    return sums
