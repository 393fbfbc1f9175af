"""One operation of deformable attention to maps, and the points that each query looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.attention.reading import Reading
from vistool.analyses.attention.selection import Query
from vistool.errors import InputError
from vistool.network.sampling import OFFSETS, TOLERANCE, SampledAttention
from vistool.network.tensors import Size
from vistool.network.token_layout import Unplaced
from vistool.results import SampledPoints

_ANYWHERE = 4
"""How many queries are checked besides those that are read."""


def read_sampled(op: SampledAttention, queries: Sequence[Query], points: Tensor, size: Size) -> Reading:
    """Maps and sampling points of every query.

    A map is what the weights come to on the cells of every level, on the grid of the finest: a coarse cell's weight is
    spread evenly over its area. A query that is a place becomes one for each level, since the encoder has a token for
    the place on each.

    Args:
        op: The operation.
        queries: The queries.
        points: ``(B, Q, 2)``, ``(x, y)`` of point queries in network pixels.
        size: ``(H, W)`` of the network input.

    Raises:
        Unplaced: An operator hid the points, or a place is asked for and the queries are not places.
        InputError: There is no such query, or points and weights do not give the operation's output.
    """
    require_points(op)
    finest = max(op.sizes, key=lambda each: each[0] * each[1])
    resolved: list[Query] = []
    maps: list[Tensor] = []
    found: list[Sequence[SampledPoints | None]] = []
    for number, query in enumerate(queries):
        for token, own in _tokens(op, query, points[:, number], size):
            resolved.append(own)
            if token is None:
                maps.append(_mean_map(op, finest))
                found.append([None] * op.batch)
                continue
            _verify(op, token)
            maps.append(_on_one_grid([each.squeeze(1) for each in op.cells([token])], finest, op.batch))
            found.append(_points_of(op, token, size))
    stacked = torch.stack(maps, 1)
    return Reading(
        op.index,
        op.name,
        stacked,
        stacked.new_zeros(*stacked.shape[:3], 0),
        (1 - stacked.sum((3, 4))).clamp_min(0),
        op.residual[0],
        False,
        tuple(resolved),
        None,
        sampled=tuple(zip(*found, strict=True)),
    )


def require_points(op: SampledAttention, places: bool = False) -> None:
    """Refuses an operation whose points were not seen, or with ``places`` one whose queries are not tokens of its maps.

    Raises:
        Unplaced: That is so.
    """
    if op.product is None:
        raise Unplaced(
            f'{op.name} is deformable attention, and its sampling points cannot be seen: it runs a compiled operator, '
            'or samples otherwise than bilinearly',
            hint='on the CPU compiled operators are not used',
            parameter='layers',
        )
    if places and op.queries != _tokens_in_all(op):
        raise Unplaced(
            f'{op.name} has {op.queries} queries whose places in the image are not known',
            accepted='the number of a token, or #N for prediction N of a detector',
            parameter='queries',
        )


def _tokens_in_all(op: SampledAttention) -> int:
    return sum(height * width for height, width in op.sizes)


def _tokens(op: SampledAttention, query: Query, points: Tensor, size: Size) -> list[tuple[int | None, Query]]:
    """The tokens that a query stands for, each with its own name; None for the mean over all."""
    if query.kind in ('auto', 'mean'):
        return [(None, replace(query, kind='mean'))]
    if query.kind == 'cls':
        raise InputError(f'{op.name} has no class token', accepted='mean, #N, or a token', parameter='queries')
    if query.kind == 'token':
        query.check(op.name, op.queries, op.of_objects)
        return [(query.index, query)]
    require_points(op, places=True)
    if op.batch > 1:
        raise InputError('places are asked for in several images at once', accepted='one image', parameter='queries')
    x, y = (points[0].cpu() / torch.tensor([size[1], size[0]])).tolist()
    found: list[tuple[int | None, Query]] = []
    first = 0
    for level, (height, width) in enumerate(op.sizes):
        token = first + min(int(y * height), height - 1) * width + min(int(x * width), width - 1)
        _check_place(op, token, (x, y), (height, width))
        found.append((token, replace(query, name=f'{query.label} level {level}')))
        first += height * width
    return found


def _check_place(op: SampledAttention, token: int, place: tuple[float, float], grid: Size) -> None:
    """Compares a token's reference point with the place that it is taken to lie at.

    Raises:
        Unplaced: They are more than a cell apart.
    """
    if op.reference is None:
        return
    reference = op.reference[0, token].cpu() - torch.tensor(place)
    if bool((reference.abs() * torch.tensor([grid[1], grid[0]]) > 1).any()):
        raise Unplaced(
            f'{op.name}: its queries do not lie row by row, level by level',
            accepted='the number of a token, or #N for prediction N of a detector',
            parameter='queries',
        )


def _verify(op: SampledAttention, token: int) -> None:
    """Rebuilds the output of a query and of some others.

    Raises:
        InputError: It is not the operation's own.
    """
    others = np.linspace(0, op.queries - 1, min(op.queries, _ANYWHERE)).astype(int).tolist()
    if not op.check([token, *others]):
        assert op.output is not None
        raise InputError(
            f"{op.name}: weights times sampled values differ from the module's own output by {op.residual[0]:.1e} of "
            f'its largest value (tolerance {TOLERANCE.get(op.output.dtype, 1e-5):.0e})',
            hint=f'the points would not be those that the model reads; see {OFFSETS} in its code',
            parameter='layers',
        )


def _mean_map(op: SampledAttention, finest: Size) -> Tensor:
    """The mean map of all queries."""
    _verify(op, 0)
    return _on_one_grid(op.mean_cells(), finest, op.batch)


def _on_one_grid(cells: Sequence[Tensor], grid: Size, batch: int) -> Tensor:
    """Levels ``(G, h, w)`` on one grid, ``(B, heads, *grid)``; sums stay what they are."""
    total = torch.zeros(len(cells[0]), *grid)
    for each in cells:
        down, across = _shares(grid[0], each.shape[1]), _shares(grid[1], each.shape[2])
        total += torch.einsum('yi,gij,xj->gyx', down, each.cpu().float(), across)
    return total.unflatten(0, (batch, -1))


def _shares(wanted: int, count: int) -> Tensor:
    """``(wanted, count)``: the share of each of ``count`` equal cells that lies in each of ``wanted`` equal cells."""
    own, other = (torch.arange(n + 1, dtype=torch.float64) / n for n in (wanted, count))
    overlap = torch.minimum(own[1:, None], other[None, 1:]) - torch.maximum(own[:-1, None], other[None, :-1])
    return (overlap.clamp_min(0) * count).float()


def _points_of(op: SampledAttention, token: int, size: Size) -> list[SampledPoints]:
    """Where a query looks in each image, in pixels of the network's input."""
    places, weights = (each[:, :, 0].cpu() for each in op.points([token]))
    scale = torch.tensor([size[1], size[0]], dtype=torch.float32)
    count = places.shape[2]
    levels = op.levels.repeat(op.heads).numpy()
    heads = np.repeat(np.arange(op.heads), count)
    found = []
    for image in range(op.batch):
        place = _array(places[image].reshape(-1, 2) * scale)
        reference = None
        if op.reference is not None:
            x, y = (op.reference[min(image, len(op.reference) - 1), token].cpu() * scale).tolist()
            reference = x, y
        found.append(SampledPoints(place, _array(weights[image].reshape(-1)), levels, heads, op.sizes, reference))
    return found


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.numpy(), np.float32)
