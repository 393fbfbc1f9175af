"""One attention operation to maps: rows of the queries, prefix tokens dropped, windows put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vistool.analyses.attention.selection import Query, find_heads
from vistool.errors import InputError, param
from vistool.network.attention import TOLERANCE, AttentionOp, of_objects
from vistool.network.token_layout import TokenLayout, Unplaced
from vistool.results import AttentionMatrix, Layer, SampledPoints


@dataclass(frozen=True)
class Reading:
    """The attention maps of one layer.

    Attributes:
        index: Number of the layer.
        name: Dotted name of its module.
        maps: ``(B, Q, heads, h, w)``: of each query, the probability of every token of the image.
        prefix: ``(B, Q, heads, P)``: the probabilities of the prefix tokens.
        padding: ``(B, Q, heads)``: the rest, the probability of padding in windows.
        residual: How far attention times values is from the module's own output, relative to its largest value.
        mixed: Whether heads were mixed after the softmax.
        queries: The queries, ``auto`` resolved.
        query_grid: ``(h, w)`` of the queries, or None.
        unchecked: Whether the order of its tokens, or of its queries, is assumed.
        sampled: For deformable attention, where each query of each image looks; None for a mean over queries.
    """

    index: int
    name: str
    maps: Tensor
    prefix: Tensor
    padding: Tensor
    residual: float
    mixed: bool
    queries: tuple[Query, ...]
    query_grid: tuple[int, int] | None
    unchecked: bool = False
    sampled: tuple[tuple[SampledPoints | None, ...], ...] = ()


def read(
    op: AttentionOp,
    layout: TokenLayout,
    queries: Sequence[Query],
    points: Tensor,
    extent: tuple[int, int],
    classes: bool,
) -> Reading:
    """Maps of every query.

    Args:
        op: The operation.
        layout: Where its tokens are.
        queries: The queries.
        points: ``(B, Q, 2)``, ``(x, y)`` of point queries in network pixels; unused for other kinds.
        extent: ``(H, W)`` network pixels that the query grid covers.
        classes: Whether the first prefix token is a class token, as far as is known.

    Raises:
        InputError: If there is no such query, or the weights do not give the module's output.
    """
    resolved = tuple(resolve_query(query, op, layout, classes) for query in queries)
    rows = []
    for number, query in enumerate(resolved):
        if query.kind == 'mean':
            rows.append(mean_row(op, layout, len(points)))
        else:
            rows.append(_row(op, layout, positions_of(query, layout, points[:, number], extent), len(points)))
    stacked = torch.stack(rows, 1)
    if any(query.kind == 'mean' for query in resolved):  # each other row has been checked by itself
        verify(op)
    prefix, image = stacked[..., : layout.prefix], stacked[..., layout.prefix :]
    padding = (1 - stacked.sum(-1)).clamp_min(0) if layout.windows is not None else stacked.new_zeros(stacked.shape[:3])
    maps = image.unflatten(-1, layout.grid)
    return Reading(
        op.index,
        op.name,
        maps,
        prefix,
        padding,
        op.residual[0],
        op.mixed,
        resolved,
        layout.query_grid,
        bool(layout.assumed),
    )


MOST_BYTES = 2 << 30
"""How large the matrices of one call may be together."""


def read_matrices(
    layers: Sequence[tuple[AttentionOp, TokenLayout]], heads: Sequence[int | str]
) -> list[AttentionMatrix]:
    """Every row of some layers of one image.

    Args:
        layers: The operations, and where their tokens are.
        heads: Which heads.

    Raises:
        InputError: There is no such head, a layer attends within windows, or the matrices are too large.
    """
    for op, layout in layers:
        if layout.windows is not None:
            raise InputError(
                f'{op.name} attends within windows, so that it has a matrix for each window and not one',
                accepted='layers in which every token attends to all',
                parameter='layers',
            )
    chosen = [find_heads(heads, op.shape[1]) for op, _ in layers]
    size = sum(4 * len(own) * op.shape[2] * op.shape[3] for own, (op, _) in zip(chosen, layers, strict=True))
    if size > MOST_BYTES:
        raise InputError(
            f'the matrices take {size / 2**30:.1f} GiB',
            accepted=f'at most {MOST_BYTES / 2**30:g} GiB',
            hint=f'choose fewer {param("layers")}, or {param("heads", "mean")}',
            parameter='heads',
        )
    return [_matrix(op, layout, own) for (op, layout), own in zip(layers, chosen, strict=True)]


def _matrix(op: AttentionOp, layout: TokenLayout, heads: Sequence[int | str]) -> AttentionMatrix:
    values = np.empty((len(heads), op.shape[2], op.shape[3]), np.float32)
    for part, weights in op.chunks():
        (rows,) = weights  # one image
        for place, head in enumerate(heads):
            own = rows.mean(0) if head == 'mean' else rows.amax(0) if head == 'max' else rows[int(head)]
            values[place, part] = own.float().cpu().numpy()
    return AttentionMatrix(
        values,
        tuple(heads),
        Layer(op.name, op.index, mixed=op.mixed, unchecked=bool(layout.assumed)),
        layout.prefix,
        layout.grid,
        layout.query_prefix if layout.query_grid is not None else 0,
        layout.query_grid,
    )


def verify(op: AttentionOp) -> None:
    """Checks a sample of rows against the operation's own output.

    Raises:
        InputError: If the weights do not give that output.
    """
    groups, positions = _spread(op.shape[0], _device(op)), _spread(op.shape[2], _device(op))
    _proven(op, groups, positions.expand(len(groups), -1))


def _proven(op: AttentionOp, groups: Tensor | None, positions: Tensor | int) -> Tensor:
    """Rows of attention, checked against the operation's own output."""
    rows = op.rows(groups, positions)
    if not op.check(groups, positions, rows):
        raise _unproven(op)
    return rows


@lru_cache
def _spread(count: int, device: torch.device) -> Tensor:
    """Up to four of so many places, the first and the last among them."""
    return torch.linspace(0, count - 1, min(count, 4), device=device).long().unique()


def _unproven(op: AttentionOp) -> InputError:
    dtype = op.output.dtype if op.output is not None else torch.float32
    return InputError(
        f"{op.name}: attention times values differs from the module's own output by {op.residual[0]:.1e} of its "
        f'largest value (tolerance {TOLERANCE.get(dtype, 1e-4):.0e} for {str(dtype).removeprefix("torch.")})',
        hint='the map would not show what the model computed; choose another layer',
        parameter='layers',
    )


def _device(op: AttentionOp) -> torch.device:
    tensor = op.weights if op.weights is not None else op.query
    assert tensor is not None
    return tensor.device


def resolve_query(query: Query, op: AttentionOp, layout: TokenLayout, classes: bool) -> Query:
    """The query that this layer has; ``auto`` becomes the class token or the mean."""
    single = op.shape[2] == 1
    has_class = single or (layout.query_grid is not None and layout.query_prefix > 0 and classes)
    if query.kind == 'auto':
        return replace(query, kind='cls' if has_class else 'mean')
    if query.kind == 'cls' and not has_class:
        raise InputError(f'{op.name} has no class token', accepted='mean, or X,Y', parameter='queries')
    if query.kind == 'token':
        query.check(op.name, op.shape[2], of_objects(op.frames, op.shape[2]))
        if layout.windows is not None:
            problem = f'{op.name} attends within windows, whose tokens are not numbered'
            raise InputError(problem, accepted='cls, mean, X,Y', parameter='queries')
    if query.kind == 'point' and layout.query_grid is None:
        raise Unplaced(
            f'{op.name} has {op.shape[2]} queries whose places in the image are not known',
            accepted='cls, mean, or the number of a token',
            parameter='queries',
        )
    return query


def positions_of(query: Query, layout: TokenLayout, points: Tensor, extent: tuple[int, int]) -> Tensor | int:
    """The query's token in each image, int64 ``(B,)``, or in all; tokens of a grid come after the prefix."""
    if query.kind in ('cls', 'token'):
        if query.kind == 'token' and layout.query_order is not None:
            return layout.query_order.index(query.index)
        return query.index
    assert layout.query_grid is not None
    height, width = layout.query_grid
    column = (points[:, 0] * width / extent[1]).long().clamp(0, width - 1)
    row = (points[:, 1] * height / extent[0]).long().clamp(0, height - 1)
    return layout.query_prefix + row * width + column


def _row(op: AttentionOp, layout: TokenLayout, tokens: Tensor | int, batch: int) -> Tensor:
    """Attention of one query of each image, ``(B, heads, prefix + h · w)``."""
    if layout.windows is None:
        groups = None if op.shape[0] == batch else torch.arange(batch, device=_device(op))
        return _proven(op, groups, tokens if isinstance(tokens, int) else tokens[:, None])[:, :, 0]
    assert layout.asking is not None and layout.query_grid is not None
    images = torch.arange(batch, device=layout.windows.device)
    count, asked = layout.grid[0] * layout.grid[1], layout.query_grid[0] * layout.query_grid[1]
    flat = layout.asking.flatten()
    at = torch.empty(batch * asked, dtype=torch.long, device=flat.device)
    at[flat[flat >= 0]] = (flat >= 0).nonzero()[:, 0]
    wanted = at[images * asked + tokens]
    groups, positions = wanted // op.shape[2], (wanted % op.shape[2])[:, None]
    inside = layout.windows[groups] - (images * count)[:, None]
    return _scatter(_proven(op, groups, positions)[:, :, 0], inside, images, batch, count)


def mean_row(op: AttentionOp, layout: TokenLayout, batch: int) -> Tensor:
    """Attention averaged over the queries that are in the image, ``(B, heads, prefix + h · w)``; streamed.

    Where no query is in the image (latents), over all of them.
    """
    groups, heads, queries, keys = op.shape
    first = layout.query_prefix if layout.query_grid is not None else 0
    total = torch.zeros(groups, heads, keys, device=_device(op), dtype=torch.float32)
    for part, weights in op.chunks():
        if layout.asking is not None:
            weights = weights * (layout.asking[:, None, part, None] >= 0)
        elif part.start < first:
            weights = weights[:, :, first - part.start :]
        total = total + weights.sum(2)
    if layout.windows is None:
        return total / (queries - first)
    count = layout.grid[0] * layout.grid[1]
    image = layout.windows.clamp_min(0).amax(1) // count  # every window lies in one image
    inside = torch.where(layout.windows < 0, -1, layout.windows % count)
    assert layout.query_grid is not None
    return _scatter(total, inside, image, batch, count) / (layout.query_grid[0] * layout.query_grid[1])


def _scatter(rows: Tensor, inside: Tensor, image: Tensor, batch: int, count: int) -> Tensor:
    """Sums rows over windows ``(n, heads, keys)`` into their images, ``(batch, heads, count)``; padding is dropped."""
    heads = rows.shape[1]
    result = rows.new_zeros(batch * heads * count + 1)
    offset = (image[:, None] * heads + torch.arange(heads, device=rows.device))[:, :, None] * count
    target = torch.where(inside[:, None] < 0, batch * heads * count, offset + inside[:, None].clamp_min(0))
    result.index_add_(0, target.flatten(), rows.flatten())
    return result[:-1].view(batch, heads, count)
